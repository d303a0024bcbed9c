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
from vae_cli.commands.inputs import choose, load_data
from vae_cli.config.validation import parse_bytes
from vae_cli.data import Data, Split
from vae_cli.errors import UserError, describe
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import Scores, batch, score
from vae_cli.evaluation.latent_codes import CHUNK, Codes
from vae_cli.models.vae import VAE
from vae_cli.reporting import run_page, tables
from vae_cli.reporting.tables import Number
from vae_cli.runs import checkpoint
from vae_cli.system import memory
from vae_cli.system.atomic import atomic_write

FRACTION = 0.1  # of the free memory that decoded images may take, with all that is made of them
LARGEST = 1 << 29  # bytes of it, if nobody asks for more
COPIES = 8  # of a decoded value in memory at once, 4 bytes each
SATURATED = 0.1  # nats from log N


def run(settings: dict[str, Any]) -> None:
    """Score a checkpoint's model, write evaluation.json and print a table.

    Args:
        settings: the plain config of `vae-evaluate`.

    Raises:
        UserError: for a checkpoint or data that cannot be used, or an output that cannot be written.
    """
    path = checkpoint.find(settings["checkpoint"])
    output = _output(settings, path)
    used = trained.load(path, settings["device"], settings["allow"])
    data = load_data(used, settings)
    split = choose(data, settings["split"], used)
    numbers = _numbers(used, data, split, settings)
    about = {"checkpoint": str(path), "data": data.facts.name, "split": settings["split"], "seed": settings["seed"]}
    about["step"] = used.step
    about |= {key: settings[key] for key in ("num_importance_samples", "limit")} | {"path": settings["dataset"]["path"]}
    _write(output, about | numbers)
    print(tables.table(about | numbers))
    print(f"written to {output}")
    if settings["output"] is None:
        _renew_page(output.parent)


def _renew_page(directory: Path) -> None:
    """Let the page of a run, where it has one, show the new numbers."""
    if (directory / run_page.NAME).exists():
        try:
            print(f"{run_page.write(directory)} is renewed")
        except Exception as error:  # of whatever kind the directory's files bring about
            print(f"{directory / run_page.NAME} could not be written again ({describe(error)})", file=sys.stderr)


def _output(settings: Mapping[str, Any], path: Path) -> Path:
    if settings["output"] is not None:
        return Path(settings["output"]).expanduser()
    folder = path.absolute().parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "evaluation.json"


@torch.no_grad()
def _numbers(used: Trained, data: Data, split: Split, settings: Mapping[str, Any]) -> dict[str, Any]:
    model, limit, seed = used.model, settings["limit"], settings["seed"]
    count = min(len(split), limit or len(split))
    draws = draws_up_to(settings["num_importance_samples"])
    with tqdm(total=count, desc="log_likelihood", unit=" images", disable=None) as bar:
        scores = score(model, split, draws, seed, count, numbers_together(settings["memory"]), bar.update)
    found = _bounds(scores, draws)
    if model.likelihood.discrete and used.facts.support == "levels256":
        found["bits_per_dim"] = number(-scores.log_likelihood[-1] / (math.prod(used.facts.shape) * math.log(2)))
    found |= _errors(model, split, count, seed)
    codes = latent_codes.encode(model, split, seed, count)
    return found | _of_codes(model, codes, seed) | _probes(model, data, split, codes, seed)


def draws_up_to(most: int) -> list[int]:
    """1, 10, 100 … and the number asked for."""
    return [10**n for n in range(len(str(most))) if 10**n < most] + [most]


def numbers_together(given: str) -> int:
    """Values that the decoder may give in one call."""
    allowed = min(FRACTION * memory.available(), LARGEST) if given == "auto" else parse_bytes(given)
    return max(1, int(allowed / (4 * COPIES)))


def number(values: Tensor) -> Number:
    """The mean of N values, its standard error and N."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return {"value": float(values.mean()), "stderr": error, "n": len(values)}


def _bounds(scores: Scores, draws: Sequence[int]) -> dict[str, Any]:
    by_draws = {str(k): number(values) for k, values in zip(draws, scores.log_likelihood)}
    names = ("elbo", "reconstruction", "kl")
    return {name: number(getattr(scores, name)) for name in names} | {
        "log_likelihood": by_draws[str(draws[-1])],
        "log_likelihood_by_samples": by_draws,
    }


@torch.no_grad()
def _errors(model: VAE, split: Split, count: int, seed: int) -> dict[str, Number]:
    """Mean squared error of the reconstructions, per pixel on [0, 1], and their peak signal-to-noise ratio in
    decibels, both averaged over images."""
    found = []
    for start in range(0, count, CHUNK):
        x, y = batch(model, split, slice(start, min(start + CHUNK, count)), seed)
        found.append((model.reconstruct(x, y).mean - x).square().flatten(1).mean(1).cpu().double())
    mse = torch.cat(found)
    return {"mse": number(mse), "psnr": number(-10 * mse.clamp(min=1e-12).log10())}


def _of_codes(model: VAE, codes: Codes, seed: int) -> dict[str, Any]:
    means = codes.means
    found: dict[str, Any] = {}
    if len(means) > 1:
        found["active_units"] = {"value": latent_codes.active_units(means), "stderr": None, "n": len(means)}
        gap, error, images = latent_codes.aggregate_gap(model, codes, seed)
        found["mmd"] = {"value": gap, "stderr": None if math.isnan(error) else error, "n": images}
    by_dimension = latent_codes.kl_per_dim(model, codes)
    if by_dimension is not None:
        found["kl_per_dim"] = by_dimension.tolist()
    information = number(latent_codes.index_code_information(model, codes, seed))
    cap = math.log(information["n"])
    found["index_code_mi"] = information | {"cap": cap, "saturated": cap - information["value"] < SATURATED}
    return found


def _probes(model: VAE, data: Data, split: Split, codes: Codes, seed: int) -> dict[str, Number]:
    """How well the codes' labels are told by classifiers of training codes; nothing for the training set itself, nor
    where the codes were made with the labels."""
    known = data.train.labels
    if model.classes or codes.labels is None or known is None or split is data.train or len(known.unique()) < 2:
        return {}
    train, test = latent_codes.points(model, data.train, seed), codes.points
    found = {
        "knn_accuracy": latent_codes.knn_accuracy(train, test),
        "linear_probe_accuracy": latent_codes.linear_probe_accuracy(train, test),
    }
    n = len(codes.labels)
    return {name: {"value": p, "stderr": math.sqrt(p * (1 - p) / n), "n": n} for name, p in found.items()}


def _write(output: Path, found: dict[str, Any]) -> None:
    try:
        with atomic_write(output) as temporary:
            temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({error.strerror or error}); name another with output=") from error
