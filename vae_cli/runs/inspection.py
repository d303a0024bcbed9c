"""Checks of what a checkpoint holds before anything in it is used."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from vae_cli.runs.tensor_file import InvalidFile

VERSION = 3
KEYS = ("model", "ema", "optimizer", "module", "scheduler", "progress", "random", "best", "config", "data", "version")
TRAINING_KEYS = ("optimizer", "module", "scheduler", "random")  # of a checkpoint that a training can be resumed from
MOST_SETTINGS = 10_000
MOST_PROCESSES = 100_000
MOST_FACTORS = 1000
MOST_AXES = 8


def check_contents(contents: dict[str, Any], has_training: bool) -> None:
    """Check what was read from a file.

    Args:
        contents: by `KEYS`.
        has_training: they hold the state of a training.

    Raises:
        InvalidFile: if it is not what vae-train writes.
    """
    version = contents["version"]
    if type(version) is not int or version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        fix = "; update vae_cli" if newer else ""
        shown = str(version)[:40] if isinstance(version, (int, str, type(None))) else type(version).__name__
        raise InvalidFile(f"of format {shown}, and this vae_cli reads format {VERSION}{fix}")
    for key, is_right in _FORM.items():
        if key in TRAINING_KEYS and not has_training:
            continue
        try:
            right = is_right(contents[key])
        except Exception:  # of whatever kind, from looking for what is not there
            right = False
        if not right:
            raise InvalidFile(f"damaged: its {key} is not what vae-train writes")
    for name, average in (contents["ema"] or {}).items():
        weights = contents["model"][name]
        kinds = {(tensor.shape, tensor.dtype) for tensor in (average, weights)}
        if len(kinds) > 1:
            raise InvalidFile(f"damaged: its average {name[:80]} is not of its weights' shape and type")
    module = contents["module"] or {}
    for weights in (contents["model"], contents["ema"], module.get("weights"), module.get("best")):
        for name, tensor in (weights or {}).items():
            if tensor.dtype.itemsize == 1 and tensor.is_floating_point():
                tensor = tensor.float()  # torch knows no infinities of these
            if not bool(tensor.isfinite().all()):
                raise InvalidFile(f"its weights {name[:80]} are not finite; use another checkpoint")


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _is_progress(value: Any) -> bool:
    counts = all(_is_count(value[key]) for key in ("epoch", "batch", "step", "skipped", "streak"))
    totals = value["totals"]
    sums = len(totals["sums"]) == len(totals["names"]) and all(map(_is_number, totals["sums"]))
    names = all(isinstance(name, str) for name in totals["names"])
    processes = value.get("processes", 1)
    shared = _is_count(processes) and 1 <= processes <= MOST_PROCESSES
    return counts and shared and _is_number(value["seconds"]) and sums and names and _is_count(totals["images"])


def _is_best(value: Any) -> bool:
    if value is None:
        return True
    numbers = all(isinstance(name, str) and _is_number(v) for name, v in value["validation"].items())
    return (
        _is_count(value["epoch"])
        and _is_count(value["step"])
        and numbers
        and {"bound", "loss"} <= value["validation"].keys()
    )


def _is_scheduler(value: Any) -> bool:
    rates = isinstance(value["rates"], list) and all(map(_is_number, value["rates"]))
    return rates and _is_count(value["total_steps"])


def _is_optimizer(value: Any) -> bool:
    groups = value["param_groups"]
    return isinstance(value["state"], dict) and isinstance(groups, list) and all(isinstance(g, dict) for g in groups)


def _is_module(value: Any) -> bool:
    """Return whether a value is what a training keeps of its objective's own module, None where that has none."""
    if value is None:
        return True
    states = _is_state(value["weights"]) and (value["best"] is None or _is_state(value["best"]))
    return states and _is_optimizer(value["optimizer"])


def _is_random(value: Any) -> bool:
    """Return whether numpy and torch, which do not check, can be given a state."""
    name, keys, position, _, _ = value["numpy"]
    twister = name == "MT19937" and keys.shape == (624,) and _is_count(position) and position <= 624
    return twister and isinstance(value["python"], tuple) and isinstance(value["torch"], Tensor)


def _is_data(value: Any) -> bool:
    shape = value["shape"]
    sizes = isinstance(shape, (list, tuple)) and 1 <= len(shape) <= MOST_AXES and all(map(_is_count, shape))
    names = all(isinstance(value[key], str) and len(value[key]) < 1000 for key in ("name", "support"))
    digest, classes = isinstance(value.get("digest", ""), str), value.get("class_names", ())
    named = isinstance(classes, (list, tuple)) and all(isinstance(name, str) and len(name) < 1000 for name in classes)
    named = named and len(classes) <= max(0, int(value["classes"]))
    named = named and _are_factors(value.get("factor_names", ()), value.get("factor_sizes", ()))
    return digest and named and sizes and names and _is_count(value["classes"]) and _is_count(value["size"])


def _are_factors(names: Any, sizes: Any) -> bool:
    lists = all(isinstance(each, (list, tuple)) and len(each) <= MOST_FACTORS for each in (names, sizes))
    texts = lists and all(isinstance(name, str) and len(name) < 1000 for name in names)
    return texts and all(map(_is_count, sizes)) and len(names) == len(sizes)


def _is_tree(value: Any) -> bool:
    """Return whether a value is a dict of plain values of a config's size; a list repeated a thousand times is not."""
    left, waiting = MOST_SETTINGS, [value]
    while waiting and left:
        left -= 1
        item = waiting.pop()
        if isinstance(item, dict):
            if not all(isinstance(key, str) for key in item):
                return False
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
        elif not (item is None or isinstance(item, (str, int, float, bool))):
            return False
    return isinstance(value, dict) and not waiting


_FORM: dict[str, Callable[[Any], bool]] = {
    "model": lambda value: _is_state(value) and bool(value),
    "ema": lambda value: value is None or _is_state(value),
    "optimizer": _is_optimizer,
    "module": _is_module,
    "scheduler": _is_scheduler,
    "progress": _is_progress,
    "random": _is_random,
    "best": _is_best,
    "config": _is_tree,
    "data": _is_data,
}
