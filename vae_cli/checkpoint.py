"""Checkpoints: one file of plain data, written so that it is whole or not there at all."""

from __future__ import annotations

import os
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_cli.errors import CheckpointError

VERSION = 1
KEYS = ("model", "ema", "optimizer", "scheduler", "progress", "random", "best", "config", "data", "version")


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint beside `path`, flush it to the disk and rename it.

    Whoever is killed meanwhile leaves the old file or the new one.
    """
    assert set(contents) == set(KEYS), "a checkpoint has exactly the documented keys"
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            torch.save(contents, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _flush_directory(path.parent)


def _flush_directory(path: Path) -> None:
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def find(path: str | Path) -> Path:
    """The checkpoint that `checkpoint=` means: a file, or a run directory's best.pt, or its last.pt.

    Raises:
        CheckpointError: if there is none.
    """
    given = Path(path).expanduser()
    if not given.is_dir():
        if given.exists():
            return given
        raise CheckpointError(f"checkpoint={path}: there is no such file or directory")
    for folder in (given / "checkpoints", given):
        for name in ("best.pt", "last.pt"):
            if (folder / name).is_file():
                return folder / name
    raise CheckpointError(f"checkpoint={path}: the directory holds no checkpoints/best.pt or last.pt")


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in the file can run code.

    Raises:
        CheckpointError: if it cannot be read, is not one of ours, or comes from a newer version.
    """
    try:
        _check_sums(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except Exception as error:
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of vae-train") from error
    if not isinstance(contents, dict) or not set(KEYS) <= contents.keys():
        missing = sorted(set(KEYS) - contents.keys()) if isinstance(contents, dict) else list(KEYS)
        raise CheckpointError(f"{path}: not a checkpoint of vae-train: {', '.join(missing)} missing")
    if contents["version"] != VERSION:
        raise CheckpointError(
            f"{path}: of format {contents['version']}, and this vae_cli reads format {VERSION}; update vae_cli"
        )
    return contents


def _check_sums(path: Path) -> None:
    """Compare every record with the checksum that was written beside it, which torch itself does not."""
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise zipfile.BadZipFile(f"{damaged} does not have its checksum")


def weights(contents: dict[str, Any]) -> dict[str, Tensor]:
    """The weights to use a model with: the averaged ones where the training kept an average."""
    return contents["model"] | (contents["ema"] or {})


def random_state(device: torch.device) -> dict[str, Any]:
    """Every random stream that a training on `device` can draw from, as plain data.

    The program itself draws from none of them: they are there for networks that do, such as one with dropout.
    """
    name, keys, position, has_gauss, cached = np.random.get_state()
    state = {
        "python": random.getstate(),
        "numpy": (name, torch.from_numpy(np.asarray(keys).astype(np.int64)), position, has_gauss, cached),
        "torch": torch.get_rng_state(),
    }
    if device.type != "cpu":
        state[device.type] = torch.get_device_module(device).get_rng_state()
    return state


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Put the streams back to where `random_state` found them; on another kind of device its own starts anew."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type])
