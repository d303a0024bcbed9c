"""`vae-evaluate`: the numbers of a trained model, as JSON and as a table."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.commands import disentanglement, generation, image_files, row_files, stored_evaluation
from vae_cli.commands.stored_evaluation import StoredEvaluation
from vae_cli.data import Data, DataFacts, Split
from vae_cli.data.base import label_names
from vae_cli.errors import ConfigError, UserError, counted, describe
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import Scores, batch, score, values_at_once
from vae_cli.evaluation.latent_codes import CHUNK, Codes
from vae_cli.evaluation.levels import active_by_level, relative_means
from vae_cli.evaluation.numbers import Number, accuracy, mean
from vae_cli.inference.inputs import choose_split, load_data
from vae_cli.models import Model
from vae_cli.reporting import run_page, tables
from vae_cli.runs import checkpoint, hub, tensor_file
from vae_cli.runs.reader import directory_of
from vae_cli.system.atomic import write_text, written_or_replaced
from vae_cli.system.paths import expand

SATURATED = 0.1  # nats below log N
NOT_WRITTEN = "these numbers are printed, and written where output= names a file"


def run(config: dict[str, Any]) -> None:
    """Score a checkpoint's model, print a table and write a file: evaluation.json unless that is for other numbers.

    Args:
        config: the plain config of `vae-evaluate`.

    Raises:
        UserError: for a checkpoint or data that cannot be used, or an output that cannot be written.
    """
    rows = None if config["rows"] is None else row_path(config["rows"])
    path = checkpoint.find(config["checkpoint"])
    is_remote = hub.is_address(config["checkpoint"])  # and lies in the Hub's cache, which is no place for results
    run_directory = Path() if is_remote else directory_of(path)
    loaded = trained.load(path, config["device"], config["allow"])
    data = load_data(loaded, config)
    split = choose_split(data, config["split"], loaded)
    coded = disentanglement.prepare(config, loaded, split)
    about = {
        "checkpoint": config["checkpoint"] if is_remote else str(path),
        "data": data.facts.name,
        "noun": data.facts.noun,
        "split": config["split"],
        "seed": config["seed"],
        "step": loaded.step,
        "weights": tensor_file.digest_of(loaded.model.state_dict()),
        "num_importance_samples": config["num_importance_samples"],
        "limit": config["limit"],
        "path": config["dataset"]["path"] if is_of_other_data(config, data, loaded) else None,
    }
    stored = StoredEvaluation(run_directory, {}) if config["output"] else stored_evaluation.find(run_directory, about)
    output = _output(config, stored, path, about, split)
    if rows is not None:
        image_files.keep(rows, [config["dataset"]["path"], loaded.settings["dataset"].get("path")], "rows")
    images = None
    if config["generation"]:
        images = generation.prepare(loaded, data, split, config, is_of_other_data(config, data, loaded))
    numbers, scores = evaluate(loaded, data, split, config)
    result = about | numbers
    if images is not None:
        result["generation"] = generation.scores(loaded, images, config)
    if coded is not None:
        result["disentanglement"] = disentanglement.numbers(loaded, coded, config)
    if rows is not None:
        with image_files.errors_name(rows, "rows"):
            row_files.write(rows, row_files.KINDS[rows.suffix.lower()], [by_row(scores, split, loaded.facts)])
        print(f"the numbers of {counted(len(scores.elbo), loaded.facts.noun)}: {rows}")
    if output is None:
        print(tables.table(result))
        return
    whole, where = stored.joined(result), written_or_replaced(output)
    try:
        write_text(output, json.dumps(whole, indent=2) + "\n")
    except OSError as error:
        raise UserError(f"{output} cannot be written ({describe(error)}); name another with output=") from error
    for lost in stored.replaced_in(whole):
        print(f"note: {output} has no {lost} any more, which were of other images, seeds or features", file=sys.stderr)
    print(tables.table(result))
    print(where)
    if config["output"] is None and not is_remote:
        _renew_page(run_directory)


def _output(
    config: Mapping[str, Any], stored: StoredEvaluation, path: Path, about: Mapping[str, Any], split: Split
) -> Path | None:
    """Return the file to write, and say what the run's own keeps of an earlier evaluation; None for an evaluation that
    is not the run's, or has less than its file."""
    if config["output"] is not None:
        return expand(config["output"])
    count = min(len(split), config["limit"] or len(split))
    reason, more = stored_evaluation.reason_not_to_write(stored.directory, path, about), stored.more_than(about, count)
    adds = more is not None and any(config[key] for key in stored_evaluation.EXTRAS)
    output = stored.path if reason is None and (more is None or adds) else None
    if reason is not None or more is not None:
        what = "of these numbers it gets those that are not there" if output else NOT_WRITTEN
        print(f"note: {stored.path} {reason or more}; {what}", file=sys.stderr, flush=True)
    return output


def _renew_page(run_directory: Path) -> None:
    """Write a run's page again, if it has one: with the new numbers."""
    page = run_directory / run_page.NAME
    if page.exists():
        try:
            print(f"{run_page.write(run_directory)} is renewed")
        except Exception as error:  # of whatever kind the directory's files bring about
            print(f"{page} could not be written again ({describe(error)})", file=sys.stderr)


def is_of_other_data(config: Mapping[str, Any], data: Data, loaded: Trained) -> bool:
    """Return whether `dataset.path=` names other data than the training's, which may lie there now."""
    return config["dataset"]["path"] is not None and data.facts.digest != loaded.facts.digest


@torch.no_grad()
def evaluate(loaded: Trained, data: Data, split: Split, config: Mapping[str, Any]) -> tuple[dict[str, Any], Scores]:
    """Return the numbers of a split by their names, and those of each example."""
    model, seed = loaded.model, config["seed"]
    count = min(len(split), config["limit"] or len(split))
    draws = draws_up_to(config["num_importance_samples"])
    with tqdm(total=count, desc="log_likelihood", unit=f" {loaded.facts.noun}s", disable=None) as bar:
        scores = score(model, split, draws, seed, count, values_at_once(config["memory"]), bar.update)
    numbers = _bounds(scores, draws)
    if model.likelihood.discrete and loaded.facts.support == "levels256":
        numbers["bits_per_dim"] = mean(-scores.log_likelihood[-1] / (math.prod(loaded.facts.shape) * math.log(2)))
    numbers |= _reconstruction_errors(model, split, count, seed)
    if not model.is_flat:  # what is of one latent vector, or compares all pairs of codes, is left out
        return numbers | _level_numbers(model, scores, split, count, seed), scores
    codes = latent_codes.encode(model, split, seed, count)
    numbers |= _code_numbers(model, codes, seed)
    # Of other data all images are scored, and none are left to train classifiers with.
    is_other = is_of_other_data(config, data, loaded)
    return numbers | ({} if is_other else _probes(model, data, split, codes, seed)), scores


def row_path(name: str) -> Path:
    """Return the file that `rows=` names.

    Raises:
        ConfigError: if it ends in neither .csv nor .parquet.
    """
    path = expand(name)
    if path.suffix.lower() not in row_files.KINDS:
        raise ConfigError(f"rows={name}: end it in .csv or .parquet")
    return path


def by_row(scores: Scores, split: Split, facts: DataFacts) -> dict[str, np.ndarray]:
    """Return the numbers of each example as columns, its row in the file first, counted from 0."""
    count = len(scores.elbo)
    columns = {"row": split.in_file[:count].numpy()}
    if split.labels is not None:
        columns["label"] = label_names(split.labels[:count].tolist(), facts.class_names)
    columns["log_likelihood"] = scores.log_likelihood[-1].numpy()
    columns |= {name: getattr(scores, name).numpy() for name in ("elbo", "reconstruction", "kl")}
    return columns


def draws_up_to(most: int) -> list[int]:
    """Return 1, 10, 100 … and the largest number of draws."""
    return [10**n for n in range(len(str(most))) if 10**n < most] + [most]


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
    """Return the mean squared error per pixel on [0, 1] and the peak signal-to-noise ratio in decibels; of values that
    are no images the mean squared error of what the encoder sees of them, over those that are not missing."""
    chunks, seen = [], None if model.preprocessing is None else model.preprocessing.standardized
    for start in range(0, count, CHUNK):
        x, y = batch(model, split, slice(start, min(start + CHUNK, count)), seed)
        shown = model.likelihood.image(model.reconstruct(x, y))
        error = shown - x if seen is None else seen(shown) - seen(x)
        chunks.append(error.square().flatten(1).nanmean(1).cpu().double())
    mse = torch.cat(chunks)
    if seen is not None:
        return {"mse": mean(mse)}
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


def _level_numbers(model: Model, scores: Scores, split: Split, count: int, seed: int) -> dict[str, Any]:
    """Return the KL and the active dimensions of each level by its name, and the active dimensions of all."""
    active: dict[str, int] = {}
    if count > 1:
        active = active_by_level(model, relative_means(model, latent_codes.points(model, split, seed, count)))
    levels: dict[str, Any] = {}
    for (name, size), kl in zip(model.level_sizes.items(), scores.kl_by_level):
        levels[name] = {"latent_dim": size, "kl": mean(kl)}
        if active:
            levels[name]["active_units"] = {"value": active[name], "stderr": None, "n": count}
    total = {"active_units": {"value": sum(active.values()), "stderr": None, "n": count}} if active else {}
    return {"levels": levels} | total


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
    return {name: accuracy(share, n) for name, share in accuracies.items()}
