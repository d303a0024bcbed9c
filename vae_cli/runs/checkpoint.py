"""Checkpoints: one file of plain data, written whole or not at all."""

from __future__ import annotations

import errno
import io
import random
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from vae_cli.errors import CheckpointError, describe
from vae_cli.runs.inspection import KEYS, VERSION, InvalidFile, check_archive, check_contents
from vae_cli.runs.reader import BEST, CHECKPOINTS, LAST
from vae_cli.system.atomic import atomic_write
from vae_cli.system.paths import expand

__all__ = ["VERSION", "copy", "find", "load", "random_state", "restore_random_state", "save", "weights"]


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint. A process that is killed meanwhile leaves the old file or the new one.

    Raises:
        OSError: if it cannot be written; the old file is as it was.
    """
    assert set(contents) == set(KEYS), "a checkpoint has exactly the documented keys"
    with atomic_write(path, durable=True) as temporary, temporary.open("wb") as file:
        sink = _Sink(file)
        try:
            torch.save(contents, sink)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise (sink.error or error) from None


class _Sink(io.RawIOBase):
    """A file that keeps the system's error, which torch.save hides behind one of its own."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.error = file, None

    error: OSError | None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise


def copy(source: Path, path: Path) -> None:
    """Write a saved checkpoint to another path, in half the time of saving it again."""
    with atomic_write(path, durable=True) as temporary:
        shutil.copyfile(source, temporary)


def find(path: str | Path) -> Path:
    """Return the file that `checkpoint=` means: a file itself, or a run directory's best.pt, or its last.pt.

    Raises:
        CheckpointError: if there is none.
    """
    place = expand(path)
    if not place.is_dir():
        if place.exists():
            return place
        raise CheckpointError(f"checkpoint={path}: there is no such file or directory")
    for file in (folder / name for folder in (place / CHECKPOINTS, place) for name in (BEST, LAST)):
        if file.is_file():
            return file
    raise CheckpointError(f"checkpoint={path}: the directory holds no {CHECKPOINTS}/{BEST} or {LAST}")


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU. Nothing in the file can run code, or take more memory than the file.

    Raises:
        CheckpointError: if it cannot be read, is not one of ours, is damaged, holds weights that are not finite, or
            comes from a newer version.
    """
    try:
        check_archive(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except InvalidFile as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:
        # An archive whose parts do not lie where it says makes zipfile seek to nowhere: an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(f"{path}: cannot be read: {describe(error)}") from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of vae-train") from error
    try:
        check_contents(contents, path.stat().st_size)
    except InvalidFile as error:
        raise CheckpointError(f"{path}: {error}") from error
    return contents


def weights(contents: dict[str, Any]) -> dict[str, Tensor]:
    """Return the weights to use a model with: the averaged ones where the training kept an average."""
    return contents["model"] | (contents["ema"] or {})


def random_state(device: torch.device) -> dict[str, Any]:
    """Return the state of every random stream that a training on `device` can draw from, as plain data.

    The program itself draws from none of them. They are there for networks that do, such as one with dropout.
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
    """Set the streams to a saved state. On another kind of device its own stream starts anew."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if device.type != "cpu" and device.type in state:
        torch.get_device_module(device).set_rng_state(state[device.type])
