"""Checkpoints: one safetensors file each, written whole or not at all.

The weights to be used, the averaged ones where a training keeps an average, stand under the model's own names. `best`
has nothing else but the metadata `config`, `data`, `progress`, `best` and `version`. `last` has besides what resuming
needs: a text `training` and the tensors that it names, whose names begin with `training.`.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_cli.errors import CheckpointError, describe, printable
from vae_cli.runs import hub, tensor_file
from vae_cli.runs.config_file import with_later_keys
from vae_cli.runs.inspection import KEYS, TRAINING_KEYS, VERSION, check_contents
from vae_cli.runs.reader import BEST, CHECKPOINTS, LAST, runs_below
from vae_cli.runs.tensor_file import InvalidFile
from vae_cli.system import plain_data
from vae_cli.system.paths import expand

__all__ = ["VERSION", "find", "load", "random_state", "restore_random_state", "save", "save_weights", "weights"]

NAMED = 3  # runs in the error about a folder of them
_TRAINING = "training"
_NUMBERS = ("progress", "best")
_MODEL_KEYS = ("config", "data", "progress", "best", "version")  # of the metadata of every checkpoint


def save(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint that a training can be resumed from.

    Args:
        path: the file.
        contents: `model` and, where an average is kept, `ema`: tensors by name; and plain data under the other `KEYS`.

    Raises:
        OSError: if it cannot be written; the old file is as it was.
        CheckpointError: for a state of the model or the optimizer that is no plain data.
    """
    assert set(contents) == set(KEYS), "a checkpoint has exactly the documented keys"
    averages = contents["ema"] or {}
    own = {name: contents["model"][name] for name in averages}  # which the averages take the place of
    training = {key: contents[key] for key in TRAINING_KEYS} | {"weights": own}
    try:
        text, tensors = plain_data.split(training, _TRAINING)
        _write(path, contents, tensors, {_TRAINING: text})
    except TypeError as error:
        raise CheckpointError(
            f"{path} cannot be written, so that the training could not be resumed: {error}"
        ) from error


def save_weights(path: Path, contents: dict[str, Any]) -> None:
    """Write a checkpoint with what using the model needs, and nothing of the training's state.

    Raises:
        OSError: if it cannot be written; the old file is as it was.
        CheckpointError: if a training may go on from the file that would be replaced.
    """
    if path.name == LAST and path.exists():
        raise CheckpointError(f"{path}: a training goes on from the file of this name; choose another")
    _write(path, contents, {}, {})


def _write(path: Path, contents: dict[str, Any], tensors: dict[str, Tensor], texts: dict[str, Any]) -> None:
    metadata = {key: contents[key] for key in _MODEL_KEYS}
    for key in _NUMBERS:  # of which those that are not finite have no name in JSON
        metadata[key], _ = plain_data.split(contents[key], key)
    tensor_file.write(path, weights(contents) | tensors, metadata | texts)


def find(path: str | Path) -> Path:
    """Return the file that `checkpoint=` means: a file, one on the Hub, or a run's best checkpoint, else its last.

    Raises:
        CheckpointError: if there is none.
    """
    if hub.is_address(path):
        return hub.download(path)
    place = expand(path)
    if not place.is_dir():
        if place.exists():
            return place
        raise CheckpointError(f"checkpoint={path}: there is no such file or directory")
    for file in (folder / name for folder in (place / CHECKPOINTS, place) for name in (BEST, LAST)):
        if file.is_file():
            return file
    if any(place.glob("checkpoints/*.pt")):
        hint = "; its .pt files are of an older vae_cli, which alone reads them: train again"
    elif runs := runs_below(place):
        newest = ", ".join(printable(run) for run in runs[:NAMED])
        others = f" and {len(runs) - NAMED:,} older" if len(runs) > NAMED else ""
        hint = f"; name one of the runs in it, such as the newest: {newest}{others}"
    else:
        hint = ""
    raise CheckpointError(f"checkpoint={path}: the directory holds no {CHECKPOINTS}/{BEST} or {LAST}{hint}")


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint. Its tensors are mapped: they take memory once they are used, and may be written to.

    Returns:
        The contents as `save` takes them; without a training's state `ema` and the keys of `TRAINING_KEYS` are None,
        and `model` has the weights to be used.

    Raises:
        CheckpointError: if it cannot be read, is not one of ours, is damaged, holds weights that are not finite, or
            comes from a newer version.
    """
    try:
        tensors, texts = tensor_file.read(path)
        training = texts.pop(_TRAINING, None)
        model = {name: value for name, value in tensors.items() if not name.startswith(f"{_TRAINING}.")}
        contents: dict[str, Any] = dict.fromkeys(KEYS) | {"model": model}
        missing = [key for key in _MODEL_KEYS if key not in texts]
        if missing:
            raise InvalidFile(f"not a checkpoint of vae-train: {', '.join(missing)} missing")
        contents |= {key: texts[key] for key in _MODEL_KEYS} | {key: _plain(texts[key], key) for key in _NUMBERS}
        if training is not None:
            contents |= _training_state(training, tensors, model)
        check_contents(contents, training is not None)
        data = contents["data"]
        contents["config"] = with_later_keys(contents["config"])
        lists = ("shape", "class_names", "factor_names", "factor_sizes")
        contents["data"] = data | {key: tuple(data[key]) for key in lists if key in data}
        if "columns" in data:
            plain = ({**column, "categories": tuple(column["categories"])} for column in data["columns"])
            contents["data"]["columns"] = tuple(plain)
    except InvalidFile as error:
        raise CheckpointError(f"{path}: {error}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {describe(error)}") from error
    return contents


def _plain(text: Any, key: str) -> Any:
    try:
        return plain_data.join(text, {})
    except Exception as error:
        raise InvalidFile(f"damaged: its {key} is not what vae-train writes") from error


def _training_state(text: Any, tensors: dict[str, Tensor], model: dict[str, Tensor]) -> dict[str, Any]:
    try:
        state = {"module": None} | plain_data.join(text, tensors)  # which earlier files lack
        own = state.pop("weights")
        averages = {name: model[name] for name in own}
        return {key: state[key] for key in TRAINING_KEYS} | {"model": model | own, "ema": averages or None}
    except Exception as error:  # plain data can be wrong in more ways than anybody lists
        raise InvalidFile("damaged: its training is not what vae-train writes") from error


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
