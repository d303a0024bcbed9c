"""Checks of a checkpoint file before anything in it is used, or takes more memory than the file."""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

VERSION = 2
KEYS = ("model", "ema", "optimizer", "scheduler", "progress", "random", "best", "config", "data", "version")
MOST_SETTINGS = 10_000
MOST_VALUES = 1_000_000
MOST_PROCESSES = 100_000
MOST_AXES = 8
_PLAIN = re.compile(
    r"collections OrderedDict|torch\._utils _rebuild_(tensor_v2|parameter)|torch (\w+Storage|Size|\w*float\w*)"
)


class InvalidFile(Exception):
    """A file that is no checkpoint of vae-train; the message says why, without the file's name."""


def check_archive(path: Path) -> None:
    """Check the file before torch opens it.

    Its records must be stored as they are and have their checksums, which torch does not compare, and its pickle must
    ask for tensors and nothing else.
    """
    size = path.stat().st_size
    if size == 0:
        raise InvalidFile("empty, not a checkpoint of vae-train")
    with path.open("rb") as file:  # torch goes by how a file starts, zipfile by how it ends
        start = file.read(4)
    if start != b"PK\x03\x04" or not zipfile.is_zipfile(path):
        raise InvalidFile("damaged or cut short, or not a checkpoint of vae-train")
    with zipfile.ZipFile(path) as archive:
        records = archive.infolist()
        stored = all(record.compress_type == zipfile.ZIP_STORED for record in records)
        if not stored or sum(record.file_size for record in records) > size:
            raise InvalidFile("not a checkpoint of vae-train: its records are compressed")
        names = {record.filename.lower() for record in records}  # torch does not tell A from a
        pickles = [record.filename for record in records if record.filename.lower().endswith("data.pkl")]
        if len(pickles) != 1 or len(names) != len(records):
            raise InvalidFile("a zip archive, but not a checkpoint of vae-train")
        damaged = archive.testzip()
        if damaged is not None:
            raise InvalidFile(f"damaged: {damaged} does not have its checksum")
        _check_pickle(archive.read(pickles[0]))


def _check_pickle(data: bytes) -> None:
    for code, argument, _ in pickletools.genops(data):
        if code.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            raise InvalidFile("not a checkpoint of vae-train: it holds objects that are no plain data; none was made")
        if code.name == "GLOBAL" and not _PLAIN.fullmatch(str(argument)):
            asked = str(argument).replace(" ", ".")
            raise InvalidFile(
                f"not a checkpoint of vae-train: it asks for {asked}, which is no plain data; nothing was run"
            )


def check_contents(contents: Any, size: int) -> None:
    """Check what torch read from the file, of `size` bytes.

    Raises:
        InvalidFile: if it is not what vae-train writes.
    """
    try:
        _check_contents(contents, size)
    except InvalidFile:
        raise
    except Exception as error:  # plain data can be wrong in more ways than anybody lists
        raise InvalidFile("damaged: its parts are not what vae-train writes") from error


def _check_contents(contents: Any, size: int) -> None:
    if not _is_bounded(contents):
        raise InvalidFile("damaged: it holds more values than a checkpoint has")
    if not isinstance(contents, dict) or not set(KEYS) <= contents.keys():
        missing = [key for key in KEYS if not isinstance(contents, dict) or key not in contents]
        raise InvalidFile(f"not a checkpoint of vae-train: {', '.join(missing)} missing")
    version = contents["version"]
    if type(version) is not int or version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        fix = "; update vae_cli" if newer else ""
        shown = str(version)[:40] if isinstance(version, (int, str, type(None))) else type(version).__name__
        raise InvalidFile(f"of format {shown}, and this vae_cli reads format {VERSION}{fix}")
    for key, is_right in _FORM.items():
        try:
            right = is_right(contents[key])
        except Exception:  # of whatever kind, from looking for what is not there
            right = False
        if not right:
            raise InvalidFile(f"damaged: its {key} is not what vae-train writes")
    for tensor in _tensors(contents):
        plain = tensor.layout == torch.strided and tensor.device.type == "cpu"
        if not plain or not tensor.nbytes <= tensor.untyped_storage().nbytes() <= size:
            raise InvalidFile("damaged: a tensor in it is larger than the file")
    for name, average in (contents["ema"] or {}).items():
        if name not in contents["model"] or average.shape != contents["model"][name].shape:
            raise InvalidFile(
                f"damaged: its average {name[:80]} is of shape {tuple(average.shape)}, unlike its weights"
            )
    for part in ("model", "ema"):
        for name, tensor in (contents[part] or {}).items():
            if not bool(tensor.isfinite().all()):
                raise InvalidFile(f"its weights {name[:80]} are not finite; use another checkpoint")


def _tensors(contents: dict[str, Any]) -> list[Tensor]:
    """Return every tensor in a checkpoint, looking into each container once."""
    tensors: list[Tensor] = []
    seen: set[int] = set()
    waiting: list[Any] = [contents]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, (dict, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            waiting.extend(value.values() if isinstance(value, dict) else value)
    return tensors


def _is_bounded(contents: Any) -> bool:
    """Return whether there are not too many values, those that are met again counted again."""
    left, waiting = MOST_VALUES, [contents]
    while waiting and left:
        left -= 1
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value)
            waiting.extend(value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            waiting.extend(value)
    return not waiting


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items())


def _is_progress(value: Any) -> bool:
    counts = all(_is_count(value[key]) for key in ("epoch", "batch", "step", "skipped", "streak"))
    totals = value["totals"]
    sums = isinstance(totals["sums"], Tensor) and totals["sums"].shape == (len(totals["names"]),)
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
    return digest and named and sizes and names and _is_count(value["classes"]) and _is_count(value["size"])


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
    "scheduler": _is_scheduler,
    "progress": _is_progress,
    "random": _is_random,
    "best": _is_best,
    "config": _is_tree,
    "data": _is_data,
}
