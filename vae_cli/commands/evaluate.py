"""`vae-evaluate`: the numbers of a trained model, as JSON and as a table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.data import Data, Split
from vae_cli.errors import UserError, describe
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import Scores, batch, score, values_at_once
from vae_cli.evaluation.latent_codes import CHUNK, Codes
from vae_cli.inference.inputs import choose_split, load_data
from vae_cli.models import Model
from vae_cli.reporting import run_page, tables
from vae_cli.reporting.tables import Number
from vae_cli.runs import checkpoint, hub
from vae_cli.runs.reader import directory_of
from vae_cli.system.atomic import write_text, written_or_replaced
from vae_cli.system.paths import expand

SATURATED = 0.1  # nats below log N


def run(config: dict[str, Any]) -> None:
    """Score a checkpoint's model, write evaluation.json and print a table.

    Args:
        config: the plain config of `vae-evaluate`.

    Raises:
        UserError: for a checkpoint or data that cannot be used, or an output that cannot be written.
    """
    path = checkpoint.find(config["checkpoint"])
    is_remote = hub.is_address(config["checkpoint"])  # and lies in the Hub's cache, which is no place for results
    run_directory = Path() if is_remote else directory_of(path)
    output = run_directory / "evaluation.json" if config["output"] is None else expand(config["output"])
    loaded = trained.load(path, config["device"], config["allow"])
    data = load_data(loaded, config)
    numbers = evaluate(loaded, data, choose_split(data, config["split"], loaded), config)
    result = {
        "checkpoint": config["checkpoint"] if is_remote else str(path),
        "data": data.facts.name,
        "split": config["split"],
        "seed": config["seed"],
        "step": loaded.step,
        "num_importance_samples": config["num_importance_samples"],
        "limit": config["limit"],
        "path": config["dataset"]["path"],
        **numbers,
    }
    where = written_or_replaced(output)
    try:
        write_text(output, json.dumps(result, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({describe(error)}); name another with output=") from error
    print(tables.table(result))
    print(where)

    # A run's page shows the new numbers.
    page = run_directory / run_page.NAME
    if config["output"] is None and not is_remote and page.exists():
        try:
            print(f"{run_page.write(run_directory)} is renewed")
        except Exception as error:  # of whatever kind the directory's files bring about
            print(f"{page} could not be written again ({describe(error)})", file=sys.stderr)


@torch.no_grad()
def evaluate(loaded: Trained, data: Data, split: Split, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the numbers of a split by their names."""
    model, seed = loaded.model, config["seed"]
    count = min(len(split), config["limit"] or len(split))
    draws = draws_up_to(config["num_importance_samples"])
    with tqdm(total=count, desc="log_likelihood", unit=" images", disable=None) as bar:
        scores = score(model, split, draws, seed, count, values_at_once(config["memory"]), bar.update)
    numbers = _bounds(scores, draws)
    if model.likelihood.discrete and loaded.facts.support == "levels256":
        numbers["bits_per_dim"] = mean(-scores.log_likelihood[-1] / (math.prod(loaded.facts.shape) * math.log(2)))
    numbers |= _reconstruction_errors(model, split, count, seed)
    codes = latent_codes.encode(model, split, seed, count)
    numbers |= _code_numbers(model, codes, seed)
    # Of other data all images are scored, and none are left to train classifiers with.
    has_training = config["dataset"]["path"] is None or data.facts.digest == loaded.facts.digest
    return numbers | (_probes(model, data, split, codes, seed) if has_training else {})


def draws_up_to(most: int) -> list[int]:
    """Return 1, 10, 100 … and the largest number of draws."""
    return [10**n for n in range(len(str(most))) if 10**n < most] + [most]


def mean(values: Tensor) -> Number:
    """Return the mean of N values, its standard error and N."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "stderr": error, "n": len(values)}


def _bounds(scores: Scores, draws: Sequence[int]) -> dict[str, Any]:
    by_draws = {str(k): mean(values) for k, values in zip(draws, scores.log_likelihood)}
    return {
        "elbo": mean(scores.elbo),
        "reconstruction": mean(scores.reconstruction),
        "kl": mean(scores.kl),
        "log_likelihood": by_draws[str(draws[-1])],
        "log_likelihood_by_samples": by_draws,
    }


def _reconstruction_errors(model: Model, split: Split, count: int, seed: int) -> dict[str, Number]:
    """Return the mean squared error per pixel on [0, 1] and the peak signal-to-noise ratio in decibels."""
    chunks = []
    for start in range(0, count, CHUNK):
        x, y = batch(model, split, slice(start, min(start + CHUNK, count)), seed)
        chunks.append((model.likelihood.image(model.reconstruct(x, y)) - x).square().flatten(1).mean(1).cpu().double())
    mse = torch.cat(chunks)
    return {"mse": mean(mse), "psnr": mean(-10 * mse.clamp(min=1e-12).log10())}


def _code_numbers(model: Model, codes: Codes, seed: int) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    means = codes.means
    if len(means) > 1:
        numbers["active_units"] = {"value": latent_codes.active_units(means), "stderr": None, "n": len(means)}
        gap, error, images = latent_codes.aggregate_gap(model, codes, seed)
        numbers["mmd"] = {"value": gap, "stderr": None if math.isnan(error) else error, "n": images}
    kl_per_dim = latent_codes.kl_per_dim(model, codes)
    if kl_per_dim is not None:
        numbers["kl_per_dim"] = kl_per_dim.tolist()
    information = mean(latent_codes.index_code_information(model, codes, seed))
    cap = math.log(information["n"])
    numbers["index_code_mi"] = information | {"cap": cap, "saturated": cap - information["value"] < SATURATED}
    return numbers


def _probes(model: Model, data: Data, split: Split, codes: Codes, seed: int) -> dict[str, Number]:
    """Return how often classifiers of training codes name the labels of others.

    There are none for the training set itself, nor where the codes were made with the labels.
    """
    labels = data.train.labels
    if model.classes or codes.labels is None or labels is None or split is data.train or len(labels.unique()) < 2:
        return {}
    train, test = latent_codes.points(model, data.train, seed), codes.points
    accuracies = {
        "knn_accuracy": latent_codes.knn_accuracy(train, test),
        "linear_probe_accuracy": latent_codes.linear_probe_accuracy(train, test),
    }
    n = len(codes.labels)
    return {name: {"value": p, "stderr": math.sqrt(p * (1 - p) / n), "n": n} for name, p in accuracies.items()}
