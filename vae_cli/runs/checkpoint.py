"""Checkpoints: one file of plain data, written so that it is whole or not there at all."""

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

from vae_cli.errors import CheckpointError
from vae_cli.runs.inspection import KEYS, VERSION, Unfit, check_archive, check_contents
from vae_cli.system.atomic import atomic_write

__all__ = ["VERSION", "copy", "find", "load", "random_state", "restore_random_state", "save", "weights"]


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint beside `path`, flush it to the disk and rename it.

    Whoever is killed meanwhile leaves the old file or the new one.

    Raises:
        OSError: if it cannot be written; the old file is as it was.
    """
    assert set(contents) == set(KEYS), "a checkpoint has exactly the documented keys"
    with atomic_write(path, durable=True) as temporary, temporary.open("wb") as file:
        _write(contents, file)


def copy(source: Path, path: Path) -> None:
    """Write what `save` has written once more, in half the time; as `save` otherwise."""
    with atomic_write(path, durable=True) as temporary:
        shutil.copyfile(source, temporary)


def _write(contents: dict[str, Any], file: BinaryIO) -> None:
    """As torch.save, which hides what the system said behind an error of its own."""
    told: list[OSError] = []

    class Sink(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: Any) -> int:
            try:
                return file.write(data)
            except OSError as error:
                told.append(error)
                raise

    try:
        torch.save(contents, Sink())  # type: ignore[arg-type]
    except RuntimeError as error:
        raise (told[0] if told else error) from None


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
    """Read a checkpoint onto the CPU; nothing in the file can run code, or take more memory than the file.

    Raises:
        CheckpointError: if it cannot be read, is not one of ours, is damaged, holds weights that are not finite, or
            comes from a newer version.
    """
    try:
        check_archive(path)
        contents = torch.load(path, map_location="cpu", weights_only=True)
    except Unfit as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:
        # An archive whose parts do not lie where it says makes zipfile seek to nowhere: an invalid argument.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
        raise CheckpointError(f"{path}: damaged, or not a checkpoint of vae-train") from error
    try:
        check_contents(contents, path.stat().st_size)
    except Unfit as error:
        raise CheckpointError(f"{path}: {error}") from error
    return contents


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
