"""What `vae-evaluate disentanglement=true` adds: scores of a split's codes against the factors of its images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vae_cli import noise
from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.data import Split
from vae_cli.errors import ConfigError, DataError, UserError, counted
from vae_cli.evaluation import disentanglement, latent_codes
from vae_cli.evaluation.factor_information import gaussian_total_correlation
from vae_cli.evaluation.run_agreement import INFORMATIVE, agreement
from vae_cli.models import Model
from vae_cli.runs import checkpoint
from vae_cli.runs.reader import Run, directory_of, find

DEFAULTS = {"codes": "mean", "trees": "random_forest", "beside": None}  # of the keys that say how
SEEDS = 2**32  # scikit-learn takes no larger ones


@dataclass(frozen=True)
class Means:
    """The posterior means (N, D) of images, and which dimensions are informative."""

    values: np.ndarray
    informative: np.ndarray


@dataclass(frozen=True)
class Prepared:
    """The images whose codes are scored, and the runs whose codes of them are compared."""

    split: Split
    runs: Sequence[Run]


def prepare(config: Mapping[str, Any], loaded: Trained, split: Split) -> Prepared | None:
    """Return the images and the runs, after checking that the scores can be made; None if they are not asked for.

    Raises:
        ConfigError: for keys of disentanglement without it, or a model without one latent vector.
        DataError: for images without factors, or too few.
        UserError: if there is no run to compare.
    """
    if not config["disentanglement"]:
        for key, default in DEFAULTS.items():
            if config[key] != default:
                raise ConfigError(f"{key}={config[key]} is of disentanglement; add disentanglement=true")
        return None
    if not loaded.model.is_flat:
        raise ConfigError(
            "disentanglement=true is of one latent vector, and this model has levels of them; use one of model=vae"
        )
    if split.factors is None:
        raise DataError(
            f"disentanglement=true needs the factors of each image, and {loaded.facts.name} has none; train on "
            "dataset=sprites, or on dataset=arrays with train_labels of shape (N, F)"
        )
    count = min(len(split), config["limit"] or len(split))
    if count < len(split):  # the first ones of a set in the order of its factors would not be like the others
        chosen = torch.randperm(len(split), generator=noise.generator(config["seed"], "factors"))[:count]
        split = split.take(chosen.sort().values)
    disentanglement.check(count, _varying(split), loaded.model.latent_dim)
    return Prepared(split, [] if config["beside"] is None else _runs_beside(config, loaded))


def _varying(split: Split) -> int:
    """Return how many factors vary."""
    assert split.factors is not None
    return int((split.factors != split.factors[:1]).any(0).sum())


def _runs_beside(config: Mapping[str, Any], loaded: Trained) -> list[Run]:
    """Return the runs whose models can be compared; the others are named."""
    paths = [config["beside"]] if isinstance(config["beside"], str) else list(config["beside"])
    own = directory_of(checkpoint.find(config["checkpoint"])).resolve()
    others = [run for run in find(paths) if run.path.resolve() != own]
    if not others:
        raise UserError(f"beside={', '.join(paths)}: there is no run in it but this one; name others of the same data")
    comparable = [run for run in others if _comparable(run, loaded, config) is not None]
    if not comparable:
        raise UserError("beside=: no model there is of these data and has one latent vector; name other runs")
    return comparable


def numbers(loaded: Trained, prepared: Prepared, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the scores of images by name, and the variant that each is of."""
    model, seed, split = loaded.model, config["seed"], prepared.split
    count = len(split)
    codes = latent_codes.encode(model, split, seed)
    means, draws = codes.means.double().numpy(), codes.draws(model, seed).double().numpy()
    assert split.factors is not None
    factors = split.factors.cpu().numpy()
    steps = disentanglement.STEPS + _varying(split) + means.shape[1] + len(prepared.runs)
    with tqdm(total=steps, desc="disentanglement", unit=" steps", disable=None) as bar:
        scored = draws if config["codes"] == "draw" else means
        names = loaded.facts.factor_names
        result = disentanglement.scores(scored, factors, names, seed % SEEDS, config["trees"], bar.update)
        for name, values in (("", means), ("_of_draws", draws)):
            value = gaussian_total_correlation(values)
            result[f"gaussian_total_correlation{name}"] = {"value": value, "stderr": None, "n": count}
        variant = {"codes": "means of q(z|x)" if config["codes"] == "mean" else "a draw from q(z|x) for each image"}
        others = list(_means_of(loaded, prepared, config, bar))
        if others:
            own = Means(means, _informative(model, codes, means))
            result["udr"] = _ranking(own, others)
            variant["udr"] = (
                f"means; absolute Spearman correlations; dimensions with a KL above {INFORMATIVE:g} nats, of "
                "both models alike; median over "
                f"{counted(result['udr']['n'], 'other run')}"
            )
    return {"n": count, "seed": seed} | result | {"variant": variant | result["variant"]}


def _ranking(own: Means, others: Sequence[Means]) -> dict[str, Any]:
    values, informative = [each.values for each in others], [each.informative for each in others]
    return {"value": agreement(own.values, values, own.informative, informative), "stderr": None, "n": len(others)}


def _means_of(loaded: Trained, prepared: Prepared, config: Mapping[str, Any], bar: tqdm) -> Iterator[Means]:
    """Yield the codes of the same images by the models of other runs."""
    for run in prepared.runs:
        # Each is loaded again: all of them together may not fit into memory. One may have changed meanwhile.
        if (other := _comparable(run, loaded, config)) is not None:
            codes = latent_codes.encode(other.model, prepared.split, config["seed"])
            means = codes.means.double().numpy()
            yield Means(means, _informative(other.model, codes, means))
        bar.update()


def _comparable(run: Run, loaded: Trained, config: Mapping[str, Any]) -> Trained | None:
    """Return the model of a run; None, and a note, if it cannot be loaded or is not of the same data."""
    try:
        other = trained.load(checkpoint.find(str(run.path)), config["device"], config["allow"])
        reason = _reason_to_skip(other, loaded)
    except UserError as error:
        reason = str(error)
    if reason is None:
        return other
    tqdm.write(f"note: {run.name} is left out: {reason}", file=sys.stderr)
    return None


def _reason_to_skip(other: Trained, loaded: Trained) -> str | None:
    if not other.model.is_flat:
        return "its model has levels of latent variables"
    if (other.facts.digest, other.facts.shape) != (loaded.facts.digest, loaded.facts.shape):
        return "it was trained on other data"
    if other.facts.support != loaded.facts.support:
        return f"its data are {other.facts.support}, and these {loaded.facts.support} (dataset.binarize)"
    return None


def _informative(model: Model, codes: latent_codes.Codes, means: np.ndarray) -> np.ndarray:
    """Return which dimensions have a KL above 0.01 nats; where it is not known, whose means vary as much."""
    kl = latent_codes.kl_per_dim(model, codes)
    return (means.var(0) if kl is None else kl.numpy()) > INFORMATIVE
