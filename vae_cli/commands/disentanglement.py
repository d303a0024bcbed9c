"""What `vae-evaluate disentanglement=true` adds: scores of a split's codes against the factors of its images."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vae_cli import noise
from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.data import Split
from vae_cli.errors import CheckpointError, ConfigError, DataError, UserError, counted
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


def check(config: Mapping[str, Any], loaded: Trained, split: Split) -> list[Run]:
    """Return the runs whose codes are compared, after checking that the scores can be made.

    Raises:
        ConfigError: for keys of disentanglement without it, or a model without one latent vector.
        DataError: for images without factors.
        UserError: if there is no run to compare.
    """
    if not config["disentanglement"]:
        for key, default in DEFAULTS.items():
            if config[key] != default:
                raise ConfigError(f"{key}={config[key]} is of disentanglement; add disentanglement=true")
        return []
    if not loaded.model.is_flat:
        raise ConfigError(
            "disentanglement=true is of one latent vector, and this model has levels of them; use one of model=vae"
        )
    if split.factors is None:
        raise DataError(
            f"disentanglement=true needs the factors of each image, and {loaded.facts.name} has none; train on "
            "dataset=sprites, or on dataset=arrays with train_labels of shape (N, F)"
        )
    factors, count = split.factors, min(len(split), config["limit"] or len(split))
    varying = int((factors != factors[:1]).any(0).sum())
    disentanglement.check(count, varying, loaded.model.latent_dim)
    if config["beside"] is None:
        return []
    paths = [config["beside"]] if isinstance(config["beside"], str) else list(config["beside"])
    own = directory_of(checkpoint.find(config["checkpoint"])).resolve()
    others = [run for run in find(paths) if run.path.resolve() != own]
    if not others:
        raise UserError(f"beside={', '.join(paths)}: there is no run in it but this one; name others of the same data")
    return others


def numbers(
    loaded: Trained, split: Split, count: int, config: Mapping[str, Any], others: Sequence[Run]
) -> dict[str, Any]:
    """Return the scores of so many images of a split by name, at random if they are not all, and the variant that each
    is of."""
    model, seed = loaded.model, config["seed"]
    if count < len(split):  # the first ones of a set in the order of its factors would not be like the others
        chosen = torch.randperm(len(split), generator=noise.generator(seed, "factors"))[:count]
        split = split.take(chosen.sort().values)
    codes = latent_codes.encode(model, split, seed, count)
    means, draws = codes.means.double().numpy(), codes.draws(model, seed).double().numpy()
    assert split.factors is not None
    factors = split.factors[:count].cpu().numpy()
    varying = int((factors != factors[:1]).any(0).sum())
    steps = disentanglement.STEPS + varying + means.shape[1] + len(others)
    with tqdm(total=steps, desc="disentanglement", unit=" steps", disable=None) as bar:
        scored = draws if config["codes"] == "draw" else means
        names = loaded.facts.factor_names
        result = disentanglement.scores(scored, factors, names, seed % SEEDS, config["trees"], bar.update)
        for name, values in (("", means), ("_of_draws", draws)):
            value = gaussian_total_correlation(values)
            result[f"gaussian_total_correlation{name}"] = {"value": value, "stderr": None, "n": count}
        variant = {"codes": "means of q(z|x)" if config["codes"] == "mean" else "a draw from q(z|x) for each image"}
        if others:
            own = Means(means, _informative(model, codes, means))
            result["udr"] = _ranking(own, loaded, split, count, config, others, bar)
            variant["udr"] = (
                f"means; absolute Spearman correlations; dimensions with a KL above {INFORMATIVE:g} nats; median over "
                f"{counted(result['udr']['n'], 'other run')}"
            )
    return {"n": count} | result | {"variant": variant | result["variant"]}


def _ranking(
    own: Means, loaded: Trained, split: Split, count: int, config: Mapping[str, Any], others: Sequence[Run], bar: tqdm
) -> dict[str, Any]:
    found = list(_means_of(others, loaded, split, count, config, bar))
    if not found:
        raise UserError("beside=: no model there is of these data and has one latent vector; name other runs")
    values, informative = [each.values for each in found], [each.informative for each in found]
    value = agreement(own.values, values, own.informative, informative)
    return {"value": value, "stderr": None, "n": len(found)}


def _means_of(
    runs: Sequence[Run], loaded: Trained, split: Split, count: int, config: Mapping[str, Any], bar: tqdm
) -> Iterator[Means]:
    """Yield the codes of the same images by the models of other runs; those that cannot encode them are named."""
    for run in runs:
        try:
            other = trained.load(_selected(run.path), config["device"], config["allow"])
            reason = _reason_to_skip(other, loaded)
        except CheckpointError as error:
            reason = str(error)
        if reason is None:
            codes = latent_codes.encode(other.model, split, config["seed"], count)
            means = codes.means.double().numpy()
            yield Means(means, _informative(other.model, codes, means))
        else:
            bar.clear()
            print(f"note: {run.name} is left out: {reason}", file=sys.stderr)
        bar.update()


def _selected(directory: Path) -> Path:
    return checkpoint.find(str(directory))


def _reason_to_skip(other: Trained, loaded: Trained) -> str | None:
    if not other.model.is_flat:
        return "its model has levels of latent variables"
    if (other.facts.digest, other.facts.shape) != (loaded.facts.digest, loaded.facts.shape):
        return "it was trained on other data"
    return None


def _informative(model: Model, codes: latent_codes.Codes, means: np.ndarray) -> np.ndarray:
    """Return which dimensions have a KL above 0.01 nats; where it is not known, whose means vary as much."""
    kl = latent_codes.kl_per_dim(model, codes)
    return (means.var(0) if kl is None else kl.numpy()) > INFORMATIVE
