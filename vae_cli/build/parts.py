"""From a plain config and facts about the data to the parts of a training."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn

from vae_cli.build.options import PLAIN_WARM_UP, choice, option
from vae_cli.build.registry import Config, construct, constructor_parameters, resolve
from vae_cli.build.settings import FEWEST_EPOCHS
from vae_cli.data import DataFacts, Dataset
from vae_cli.data.base import UNBOUNDED
from vae_cli.data.columns import kinds_of
from vae_cli.distributions import Likelihood, Posterior, Prior
from vae_cli.errors import ConfigError, describe
from vae_cli.models import Model
from vae_cli.models.preprocessing import Preprocessing
from vae_cli.networks import LabeledDecoder, LabeledEncoder
from vae_cli.networks.layers import Shape
from vae_cli.objectives import IncompatibleError, Objective
from vae_cli.optimizers import FUSED
from vae_cli.runs.tensor_file import mismatch
from vae_cli.schedules import Schedule
from vae_cli.system import memory

ADAPTIVE = (torch.optim.Adam, torch.optim.AdamW, torch.optim.Adamax, torch.optim.RAdam, torch.optim.RMSprop)
SCALE_PACE = 10.0
MODEL_GROUPS = ("model", "encoder", "decoder", "posterior", "prior", "likelihood")
MOST_CLASSES = 100_000
# What batch_size=auto and epochs=auto aim at: a small set is no reason for few steps.
LARGEST_BATCH, STEPS_PER_EPOCH = 128, 50
MOST_EPOCHS, STEPS = 500, 5000
WARM_STEPS = 1000  # of β in a hierarchy, at the least, if they are not over half of the epochs
TRAINED_COPIES = 4  # a weight, its gradient and what Adam keeps of it
AUTO_LIKELIHOODS = {
    "binary": "bernoulli",
    "levels256": "discretized_logistic",
    "unit": "normal",
    "real": "normal",
    "counts": "negative_binomial",
    "mixed": "mixed",
}
LABELS = {  # how each data set is given labels
    "folder": "a subfolder for each class",
    "table": "dataset.label=COLUMN",
    "anndata": "dataset.label=COLUMN, of obs",
    "arrays": "train_labels, and valid_labels and test_labels where there are those splits",
}
SUPPORTS = {
    "binary": "binary pixels",
    "levels256": "8-bit images",
    "unit": "floats in [0, 1]",
    "real": "real numbers",
    "counts": "counts",
    "mixed": "columns of several kinds",
}

Trusted = Collection[str] | None


def with_choices(config: Config, facts: DataFacts, world_size: int = 1) -> Config:
    """Return the config with every `auto` replaced by the choice for the data.

    Args:
        config: the plain config.
        facts: about the data.
        world_size: how many processes take a batch each at every step.
    """
    batch_size, epochs = config["batch_size"], config["epochs"]
    if config["likelihood"]["_target_"] == "auto":
        likelihood = option("likelihood", AUTO_LIKELIHOODS[facts.support])
        if facts.support == "real" and len(facts.shape) == 1:  # a column has a noise of its own
            likelihood = likelihood | {"scale": "per_position"}
        config = config | {"likelihood": likelihood}
    if batch_size == "auto":
        share = max(1, facts.size // (world_size * STEPS_PER_EPOCH))
        smallest: int = resolve("objective", config["objective"]["_target_"]).smallest_batch  # type: ignore[attr-defined]
        batch_size = min(LARGEST_BATCH, max(smallest, 1 << (share.bit_length() - 1)))
    steps = -(-facts.size // min(facts.size, world_size * batch_size))  # of an epoch
    if epochs == "auto":
        epochs = min(MOST_EPOCHS, max(FEWEST_EPOCHS, -(-STEPS // steps)))
    return config | {"batch_size": batch_size, "epochs": epochs, "objective": _with_warm_up(config, epochs, steps)}


def _with_warm_up(config: Config, epochs: int, steps: int) -> Config:
    """Return the objective's config with every `auto` of its warm-up replaced.

    A flat model has none. A hierarchy loses levels without one, so that β grows over a tenth of the epochs, or so many
    steps, and the levels are balanced.
    """
    objective = config["objective"]
    schedule, warmup = (objective.get(key) for key in PLAIN_WARM_UP)
    chosen = dict(PLAIN_WARM_UP)
    if "auto" in (schedule, warmup) and not _is_flat(config, None):
        if warmup == "auto":
            warmup = round(min(epochs / 2, max(epochs / 10, WARM_STEPS / steps)), 2)
        is_of_levels = objective.get("capacity") is None and objective.get("free_bits_by") != "sum"
        chosen = {"beta_schedule": "balanced" if warmup and is_of_levels else "linear", "warmup_epochs": warmup}
    return objective | {key: value for key, value in chosen.items() if objective.get(key) == "auto"}


def dataset(config: Config, trusted: Trusted = None) -> Dataset:
    """Return the data set, not yet loaded."""
    return construct("dataset", config["dataset"], {"data_dir": config["data_dir"]}, trusted)


def model(
    config: Config, facts: DataFacts, trusted: Trusted = None, weights: Mapping[str, torch.Tensor] | None = None
) -> Model:
    """Build the model that a config describes, on the CPU, with weights drawn from torch's stream.

    Args:
        config: the plain config.
        facts: about the data.
        trusted: see `registry.resolve`.
        weights: weights that the model will be given, and whose shapes it must have.

    Raises:
        ConfigError: if the parts do not fit each other, the data or the memory.
        ValueError: if the model has no place for the weights.
    """
    # A sketch without memory shows how large the model is. A user's own network may not do without and is left alone.
    if _is_supplied(config):
        with torch.device("meta"):
            sketch = _assemble(config, facts, trusted)
        if weights is None:
            _check_memory(sketch, "latent_dim" if "latent_dim" in config else "model")
        else:
            _check_shapes(sketch, weights)
    return _assemble(config, facts, trusted)


def model_with(config: Config, facts: DataFacts, trusted: Trusted, weights: Mapping[str, torch.Tensor]) -> Model:
    """Build the model that a config describes around weights, which are not copied where its networks are supplied.

    Raises:
        ConfigError: if the parts do not fit each other or the data.
        ValueError, RuntimeError: if the model has no place for the weights.
    """
    if not (_is_supplied(config) and _is_flat(config, trusted)):
        built = _assemble(config, facts, trusted)
        built.load_state_dict(weights)
        return built
    with torch.device("meta"):
        _check_shapes(_assemble(config, facts, trusted), weights)
    built = _assemble(config, facts, trusted, networks_on="meta")
    built.load_state_dict(weights, assign=True)
    assert not any(tensor.is_meta for tensor in (*built.parameters(), *built.buffers())), "weights for all networks"
    return built


def _is_supplied(config: Config) -> bool:
    return all(str(config[group]["_target_"]).startswith("vae_cli.") for group in MODEL_GROUPS if group in config)


def _assemble(config: Config, facts: DataFacts, trusted: Trusted, networks_on: str | None = None) -> Model:
    """Return the model; with `networks_on`, the encoder and decoder of a model of one level on that device."""
    classes = _classes(config, facts)

    def part(group: str, **arguments: Any) -> Any:
        if group not in config:
            raise ConfigError(f"{group} is missing, and model={choice('model', config['model'])} needs it")
        return construct(group, config[group], arguments, trusted)

    def make_prior(latent_dim: int) -> Prior:
        about = {"shape": facts.shape, "classes": facts.classes, "size": facts.size}
        return part("prior", latent_dim=latent_dim, is_bounded=facts.support not in UNBOUNDED, **about)

    columns = facts.columns
    sizes = [column.size for column in columns if column.kind == "categorical"]
    likelihood: Likelihood = part("likelihood", shape=facts.shape, kinds=kinds_of(columns), categories=sizes)
    _check_support(likelihood, facts)
    preprocessing = None
    if not facts.is_image:
        preprocessing = _preprocessing(facts)
    given = {"likelihood": likelihood, "precision": getattr(torch, config["precision"]), "classes": classes}
    given["preprocessing"] = preprocessing
    if not _is_flat(config, trusted):
        return part("model", shape=facts.shape, make_prior=make_prior, **given)
    posterior: Posterior = part("posterior", latent_dim=config["latent_dim"])
    prior = make_prior(config["latent_dim"])
    with nullcontext() if networks_on is None else torch.device(networks_on):
        seen = facts.shape if preprocessing is None else preprocessing.seen_shape
        encoder = _encoder(part, seen, posterior.features, classes, _takes_labels("encoder", config, trusted))
        takes_labels = _takes_labels("decoder", config, trusted)
        decoder = _decoder(part, config["latent_dim"], likelihood.output_shape, classes, takes_labels)
    return part("model", encoder=encoder, decoder=decoder, posterior=posterior, prior=prior, **given)


def _preprocessing(facts: DataFacts) -> Preprocessing:
    """Return what stands between values that are no images and the networks."""
    is_count: Any = facts.support == "counts"
    is_real: Any = facts.support == "real"
    if facts.support == "mixed":
        kinds = kinds_of(facts.columns)
        is_count, is_real = ([kind == wanted for kind in kinds] for wanted in ("counts", "real"))
    return Preprocessing(facts.shape, is_count, is_real, facts.has_missing)


def _is_flat(config: Config, trusted: Trusted) -> bool:
    """Return whether the model has one level of latent variables, with networks of other groups."""
    return resolve("model", config["model"]["_target_"], trusted).is_flat  # type: ignore[attr-defined]


def _takes_labels(group: str, config: Config, trusted: Trusted) -> bool:
    """Return whether a network's class takes `classes` and sees the labels by itself."""
    return "classes" in (constructor_parameters(resolve(group, config[group]["_target_"], trusted)) or ())


def _encoder(part: Callable[..., Any], shape: Shape, features: int, classes: int, takes_labels: bool) -> nn.Module:
    """Return the encoder; labels are shown to a network that does not take them as a further channel."""
    is_shown = classes and not takes_labels
    in_shape, own = ((shape[0] + 1, *shape[1:]), 0) if is_shown else (shape, classes)
    encoder = part("encoder", shape=in_shape, out_features=features, classes=own)
    _check_output("encoder", encoder, in_shape, (features,), own)
    return LabeledEncoder(encoder, shape, classes) if is_shown else encoder


def _decoder(part: Callable[..., Any], latent_dim: int, shape: Shape, classes: int, takes_labels: bool) -> nn.Module:
    """Return the decoder; labels are shown to a network that does not take them as further inputs."""
    is_shown = classes and not takes_labels
    inputs, own = (latent_dim + classes, 0) if is_shown else (latent_dim, classes)
    decoder = part("decoder", latent_dim=inputs, out_shape=shape, classes=own)
    _check_output("decoder", decoder, (inputs,), shape, own)
    return LabeledDecoder(decoder, classes) if is_shown else decoder


def _classes(config: Config, facts: DataFacts) -> int:
    """Return how many labels the model is conditioned on: none unless the config asks for it."""
    if not config.get("conditional", False):
        return 0
    if facts.factor_names and not facts.classes:
        raise ConfigError(
            f"conditional=true needs one label for each {facts.noun}, and those of {facts.name} have "
            f"{len(facts.factor_names)} factors instead; leave it at false"
        )
    if not facts.classes:
        raise ConfigError(
            f"conditional=true needs a label for every {facts.noun} of every split, which {facts.name} does not have; "
            f"leave it at false, or give labels: {LABELS.get(facts.name, LABELS['arrays'])}"
        )
    if facts.classes > MOST_CLASSES:
        raise ConfigError(
            f"conditional=true: the largest label is {facts.classes - 1}, so there would be {facts.classes} classes; "
            f"number them from 0, {MOST_CLASSES} at most"
        )
    return facts.classes


def _check_memory(sketch: nn.Module, key: str) -> None:
    """Refuse networks whose training takes more memory than is free, by the key that makes them smaller."""
    count = sum(parameter.numel() for parameter in sketch.parameters())
    needed, free = 4 * TRAINED_COPIES * count, memory.available()
    if needed > free:
        raise ConfigError(
            f"{key}: these networks have {count:,} parameters, and training takes {memory.format_size(needed)}, of "
            f"which {memory.format_size(free)} are free; choose smaller ones"
        )


def _check_shapes(sketch: Model, weights: Mapping[str, torch.Tensor]) -> None:
    if (found := mismatch(weights, sketch)) is not None:
        name, stored, built = found
        raise ValueError(f"{name} is {stored} in its weights and {built} in its config's model")


def _check_support(likelihood: Likelihood, facts: DataFacts) -> None:
    if facts.support in likelihood.supports:
        return
    name = type(likelihood).__name__.removesuffix("Likelihood")
    supports = " or ".join(SUPPORTS[support] for support in sorted(likelihood.supports))
    fix = f"choose likelihood={AUTO_LIKELIHOODS[facts.support]} (or auto)"
    if likelihood.supports == {"binary"} and facts.is_image:
        fix = f"set dataset.binarize=dynamic, or {fix}"
    elif facts.support == "binary" and facts.is_image:
        fix = f"set dataset.binarize=none if the images themselves are gray, or {fix}"
    raise ConfigError(f"likelihood: {name} models {supports}, but {facts.name} holds {SUPPORTS[facts.support]}: {fix}")


@torch.no_grad()
def _check_output(
    group: str, network: nn.Module, in_shape: tuple[int, ...], out_shape: tuple[int, ...], classes: int
) -> None:
    """Refuse a network that does not map one example to the shape that is needed."""
    was_training = network.training
    network.eval()
    labels = (torch.zeros(1, dtype=torch.long),) if classes else ()
    try:
        shape = tuple(network(torch.zeros(1, *in_shape), *labels).shape[1:])
    except Exception as error:
        raise ConfigError(
            f"{group}: {type(network).__name__} fails on an input of shape {in_shape}: {describe(error)}"
        ) from error
    network.train(was_training)
    if shape != tuple(out_shape):
        raise ConfigError(f"{group}: {type(network).__name__} gives shape {shape} where {out_shape} is needed")


def objective(
    config: Config,
    model: Model,
    facts: DataFacts,
    steps_per_epoch: int,
    trusted: Trusted = None,
    world_size: int = 1,
) -> Objective:
    """Build the objective, its own module on the CPU with weights drawn from torch's stream.

    Args:
        config: the plain config.
        model: the model that it will be given.
        facts: about the data.
        steps_per_epoch: batches in an epoch.
        trusted: see `registry.resolve`.
        world_size: how many processes divide a batch.

    Raises:
        ConfigError: if it is not defined for the model, does not fit into memory, or cannot be divided among processes.
    """
    arguments = {"mc_samples": config["mc_samples"], "steps_per_epoch": steps_per_epoch, "size": facts.size}
    arguments["latent_dim"] = model.latent_dim
    if str(config["objective"]["_target_"]).startswith("vae_cli."):
        with torch.device("meta"):
            sketch: Objective = construct("objective", config["objective"], arguments, trusted)
        if sketch.module is not None:
            _check_memory(sketch.module, "objective")
    objective: Objective = construct("objective", config["objective"], arguments, trusted)
    try:
        objective.check(model)
    except IncompatibleError as error:
        *others, last = [_option_of(config, group) for group in error.groups]
        raise ConfigError(f"{', '.join(others)} and {last} do not go together: {error.reason}") from error
    if world_size > 1 and objective.couples_batch:
        raise ConfigError(
            f"{_option_of(config, 'objective')} cannot be divided among {world_size} processes: "
            f"{objective.couples_batch}; train it with one process"
        )
    return objective


def _option_of(config: Config, key: str) -> str:
    """Return `group=option` for a group whose option has become a class, or `key=value` or `group.key=value`."""
    group, _, inner = key.partition(".")
    value = config[group][inner] if inner else config[group]
    return f"{key}={choice(group, value) if isinstance(value, Mapping) else value}"


def optimizer(config: Config, model: Model, trusted: Trusted = None) -> torch.optim.Optimizer:
    """Build the optimizer over all parameters, fused where torch has such a version for their device.

    A class that takes `matrices` is given the weights of linear layers and convolutions. Learned scales of the
    likelihood are few numbers that have a long way to go: where the size of a step is not the gradient's, they have
    `SCALE_PACE` times the learning rate, and no weight decay.

    Raises:
        ConfigError: if the class refuses its arguments, or evaluates the loss several times a step.
    """
    settings = config["optimizer"]
    cls = resolve("optimizer", settings["_target_"], trusted)
    if issubclass(cls, torch.optim.LBFGS):
        raise ConfigError("optimizer=LBFGS evaluates the loss several times a step; choose a stochastic one")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if cls in FUSED.get(parameters[0].device.type, ()) and not {"fused", "foreach"} & settings.keys():
        settings = settings | {"fused": True}
    arguments: dict[str, Any] = {"params": parameters}
    if "matrices" in (constructor_parameters(cls) or {}):
        arguments["matrices"] = [layer.weight for layer in model.modules() if isinstance(layer, (nn.Linear, nn.Conv2d))]
    elif (
        issubclass(cls, ADAPTIVE)
        and "lr" in settings
        and (scales := [p for p in model.likelihood.parameters() if p.requires_grad])
    ):
        others = [p for p in parameters if not any(p is scale for scale in scales)]
        rate = SCALE_PACE * settings["lr"]
        arguments["params"] = [{"params": others}, {"params": scales, "lr": rate, "weight_decay": 0.0}]
    return construct("optimizer", settings, arguments, trusted)


def schedule(config: Config, steps_per_epoch: int, trusted: Trusted = None) -> Schedule:
    """Build the schedule of the learning rate over the whole training."""
    arguments = {"steps_per_epoch": steps_per_epoch, "total_steps": steps_per_epoch * config["epochs"]}
    return construct("scheduler", config["scheduler"], arguments, trusted)
