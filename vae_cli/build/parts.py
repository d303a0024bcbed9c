"""From a plain config and facts about the data to the parts of a training."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import nn

from vae_cli.build.registry import Config, construct, constructor_parameters, resolve
from vae_cli.config.options import option, options
from vae_cli.data import DataFacts, Dataset
from vae_cli.distributed.processes import ALONE, Processes
from vae_cli.distributions import Likelihood, Posterior, Prior
from vae_cli.errors import ConfigError, describe
from vae_cli.models.vae import VAE
from vae_cli.networks import LabeledDecoder, LabeledEncoder
from vae_cli.objectives import IncompatibleError, Objective
from vae_cli.schedules import Schedule
from vae_cli.system import memory

# What torch has a fused version of, by the kind of device.
FUSED: dict[str, tuple[type, ...]] = {
    "cpu": (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad),
    "cuda": (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD),
}
PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood")
MOST_CLASSES = 100_000
TRAINED_COPIES = 4  # a weight, its gradient and what Adam keeps of it
LIKELIHOODS = {"binary": "bernoulli", "levels256": "discretized_logistic", "unit": "normal"}
SUPPORTS = {"binary": "binary pixels", "levels256": "8-bit images", "unit": "floats in [0, 1]"}


def with_likelihood(config: Config, facts: DataFacts) -> Config:
    """The config with `likelihood=auto` replaced by the choice for the data's support."""
    if config["likelihood"]["_target_"] != "auto":
        return config
    return config | {"likelihood": option("likelihood", LIKELIHOODS[facts.support])}


def dataset(config: Config, trusted: Collection[str] | None = None) -> Dataset:
    """The data set, not yet loaded."""
    return construct("dataset", config["dataset"], {"data_dir": config["data_dir"]}, trusted)


def model(
    config: Config,
    facts: DataFacts,
    trusted: Collection[str] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> VAE:
    """The model a config describes for data with these facts, on the CPU, with weights drawn from torch's stream.

    Args:
        config: the plain config.
        facts: about the data.
        trusted: see `resolve`.
        weights: those it is to be given, which must have its shapes.

    Raises:
        ConfigError: if the parts do not fit each other, the data or the memory.
        ValueError: if the model has no place for the weights.
    """
    _check_size(config, facts, trusted, weights)
    return _assemble(config, facts, trusted)


def _check_size(
    config: Config,
    facts: DataFacts,
    trusted: Collection[str] | None,
    weights: Mapping[str, torch.Tensor] | None,
) -> None:
    """Find out how large the model is before any memory is taken for it.

    A user's own network may not be able to do without memory and is left alone.
    """
    if not all(str(node["_target_"]).startswith("vae_cli.") for node in (config[group] for group in PARTS)):
        return
    with torch.device("meta"):
        sketch = _assemble(config, facts, trusted)
    if weights is not None:
        _check_shapes(sketch, weights)
        return
    count = sum(parameter.numel() for parameter in sketch.parameters())
    needed, free = 4 * TRAINED_COPIES * count, memory.available()
    if needed > free:
        raise ConfigError(
            f"latent_dim={config['latent_dim']} with these networks makes {count:,} parameters: training takes "
            f"{memory.shown(needed)}, of which {memory.shown(free)} are free; choose a smaller latent_dim or network"
        )


def _check_shapes(sketch: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    wanted, found = map(_forms, (sketch.state_dict(), weights))
    for name in [*wanted, *found]:
        if wanted.get(name) != found.get(name):
            described = [f"of {forms[name]}" if name in forms else "missing" for forms in (found, wanted)]
            raise ValueError(f"{name[:80]} is {described[0]} in its weights and {described[1]} in its config's model")


def _forms(state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    kinds = {name: str(value.dtype).removeprefix("torch.") for name, value in state.items()}
    return {name: f"shape {tuple(value.shape)} in {kinds[name]}" for name, value in state.items()}


def _assemble(config: Config, facts: DataFacts, trusted: Collection[str] | None) -> VAE:
    latent_dim, shape = config["latent_dim"], facts.shape
    classes = _labels_seen(config, facts)

    def part(group: str, **more: Any) -> Any:
        return construct(group, config[group], more, trusted)

    likelihood: Likelihood = part("likelihood", shape=shape)
    _check_support(likelihood, facts)
    posterior: Posterior = part("posterior", latent_dim=latent_dim)
    prior: Prior = part("prior", latent_dim=latent_dim, shape=shape, classes=facts.classes, size=facts.size)
    encoder = _encoder(config, shape, posterior.features, classes, trusted)
    decoder = _decoder(config, latent_dim, likelihood.output_shape, classes, trusted)
    precision = getattr(torch, config["precision"])
    return VAE(encoder, decoder, posterior, prior, likelihood, precision, classes)


def _labels_seen(config: Config, facts: DataFacts) -> int:
    """How many labels the model is conditioned on: none unless the config asks for it."""
    if not config.get("conditional", False):
        return 0
    if not facts.classes:
        raise ConfigError(
            f"conditional=true needs a label for every image of every split, which {facts.name} does not have; leave "
            "it at false, or give labels: a subfolder per class (dataset=folder), train_labels, and valid_labels and "
            "test_labels where there are those splits (dataset=arrays)"
        )
    if facts.classes > MOST_CLASSES:
        raise ConfigError(
            f"conditional=true: the largest label is {facts.classes - 1}, so there would be {facts.classes} classes; "
            f"number them from 0, {MOST_CLASSES} at most"
        )
    return facts.classes


def _is_blind(group: str, config: Config, classes: int, trusted: Collection[str] | None) -> bool:
    """Whether labels have to be shown to a network, whose class does not ask for their number."""
    return classes > 0 and "classes" not in (
        constructor_parameters(resolve(group, config[group]["_target_"], trusted)) or ()
    )


def _encoder(
    config: Config, shape: tuple[int, ...], features: int, classes: int, trusted: Collection[str] | None
) -> nn.Module:
    blind = _is_blind("encoder", config, classes, trusted)
    seen = (shape[0] + blind, *shape[1:])
    own = 0 if blind else classes
    facts = {"shape": seen, "out_features": features, "classes": own}
    network = construct("encoder", config["encoder"], facts, trusted)
    _check_output("encoder", network, seen, (features,), own)
    return LabeledEncoder(network, shape, classes) if blind else network


def _decoder(
    config: Config, latent_dim: int, out_shape: tuple[int, ...], classes: int, trusted: Collection[str] | None
) -> nn.Module:
    blind = _is_blind("decoder", config, classes, trusted)
    seen, own = latent_dim + blind * classes, 0 if blind else classes
    network = construct(
        "decoder", config["decoder"], {"latent_dim": seen, "out_shape": out_shape, "classes": own}, trusted
    )
    _check_output("decoder", network, (seen,), out_shape, own)
    return LabeledDecoder(network, classes) if blind else network


def _check_support(likelihood: Likelihood, facts: DataFacts) -> None:
    if facts.support in likelihood.supports:
        return
    name = type(likelihood).__name__.removesuffix("Likelihood")
    wanted = " or ".join(SUPPORTS[support] for support in sorted(likelihood.supports))
    fix = f"choose likelihood={LIKELIHOODS[facts.support]} (or auto)"
    if likelihood.supports == {"binary"}:
        fix = f"set dataset.binarize=dynamic, or {fix}"
    elif facts.support == "binary":
        fix = f"set dataset.binarize=none if the images themselves are gray, or {fix}"
    raise ConfigError(f"likelihood: {name} models {wanted}, but {facts.name} holds {SUPPORTS[facts.support]}: {fix}")


@torch.no_grad()
def _check_output(
    group: str, network: nn.Module, shape: tuple[int, ...], wanted: tuple[int, ...], classes: int
) -> None:
    was_training = network.training
    network.eval()
    labels = (torch.zeros(1, dtype=torch.long),) if classes else ()
    try:
        found = tuple(network(torch.zeros(1, *shape), *labels).shape[1:])
    except Exception as error:
        raise ConfigError(
            f"{group}: {type(network).__name__} fails on an input of shape {shape}: {describe(error)}"
        ) from error
    network.train(was_training)
    if found != wanted:
        raise ConfigError(f"{group}: {type(network).__name__} gives shape {found} where {wanted} is needed")


def objective(
    config: Config,
    model: VAE,
    facts: DataFacts,
    steps_per_epoch: int,
    trusted: Collection[str] | None = None,
    processes: Processes = ALONE,
) -> Objective:
    """The objective, which has accepted the model, and to be divided among the processes.

    Raises:
        ConfigError: if it has not.
    """
    known = {"mc_samples": config["mc_samples"], "steps_per_epoch": steps_per_epoch, "size": facts.size}
    built: Objective = construct("objective", config["objective"], known, trusted)
    try:
        built.check(model)
    except IncompatibleError as error:
        *others, last = [_chosen(config, group) for group in error.groups]
        raise ConfigError(f"{', '.join(others)} and {last} do not go together: {error.reason}") from error
    if processes.count > 1 and built.couples_batch:
        raise ConfigError(
            f"{_chosen(config, 'objective')} cannot be divided among {processes.count} processes: "
            f"{built.couples_batch}; train it with one process"
        )
    return built


def _chosen(config: Config, key: str) -> str:
    """`group=option` as one would type it, of a config whose options have become classes; or `group.key=value`."""
    group, _, inside = key.partition(".")
    node = config[group]
    if inside:
        return f"{key}={node[inside]}"
    target = str(node["_target_"])
    known = {name: option(group, name) for name in options(group)}
    of_class = [name for name, settings in known.items() if settings["_target_"] == target]
    alike = [name for name in of_class if known[name] == node]
    named_alike = [name for name in of_class if name.replace("_", "") in target.lower()]
    return f"{group}={(alike or named_alike or of_class or [target])[0]}"


def optimizer(config: Config, model: nn.Module, trusted: Collection[str] | None = None) -> torch.optim.Optimizer:
    """The optimizer over all parameters, fused where torch has such a version for their device; a class that asks for
    `matrices` is told which are the weights of linear layers.

    Raises:
        ConfigError: if the class refuses its arguments, or wants to evaluate the loss several times a step.
    """
    options = config["optimizer"]
    cls = resolve("optimizer", options["_target_"], trusted)
    if issubclass(cls, torch.optim.LBFGS):
        raise ConfigError("optimizer=LBFGS evaluates the loss several times a step; choose a stochastic one")
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if cls in FUSED.get(parameters[0].device.type, ()) and not {"fused", "foreach"} & options.keys():
        options = options | {"fused": True}
    facts: dict[str, Any] = {"params": parameters}
    if "matrices" in (constructor_parameters(cls) or {}):
        facts["matrices"] = [layer.weight for layer in model.modules() if isinstance(layer, nn.Linear)]
    return construct("optimizer", options, facts, trusted)


def schedule(config: Config, steps_per_epoch: int, trusted: Collection[str] | None = None) -> Schedule:
    """The schedule of the learning rate over the whole training."""
    facts = {"steps_per_epoch": steps_per_epoch, "total_steps": steps_per_epoch * config["epochs"]}
    return construct("scheduler", config["scheduler"], facts, trusted)
