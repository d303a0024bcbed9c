"""The images that a command is given for a trained model: a split of its data, or a person's own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vae_cli.build import parts, registry
from vae_cli.build.trained import Trained, with_local_folders
from vae_cli.data import Data, DataFacts, Dataset, Folder, Images, Split
from vae_cli.data.base import Support
from vae_cli.errors import ConfigError, DataError

SPLITS = ("train", "validation", "test")


class Inputs:
    """Images ready for the model, in input order, with the names of the files they come from where they have any."""

    def __init__(self, split: Split, names: list[str] | None = None) -> None:
        self.split, self.names = split, names


def read(used: Trained, settings: Mapping[str, Any]) -> Inputs:
    """What `input=` names: `train`, `validation` or `test` of the model's data, a directory of images, or a file of
    arrays, prepared as the training's images were.

    Raises:
        DataError: if there is no such thing, or it does not fit the model.
    """
    given = settings["input"]
    if given in SPLITS:
        return Inputs(choose(load_data(used, settings), given, used))
    path = Path(given).expanduser()
    if not path.exists():
        raise DataError(f"input={given}: there is no such file or directory; or name train, validation or test")
    options = _elsewhere(used.settings["dataset"], used.facts, given)
    if used.facts.support == "binary" and options["binarize"] == "none":
        options["binarize"] = "threshold"  # a picture of pixels that are black or white
    dataset: Dataset = registry.construct("dataset", options, {})
    images, support, names = _in_order(dataset, used.model.classes)
    if support == "unit" and used.facts.support == "levels256":
        images, support = replace(images, values=np.rint(255 * images.values).astype(np.uint8)), "levels256"
    prepared = dataset.prepare(images, support, "input")
    _check_fit(tuple(prepared.shape), support if options["binarize"] == "none" else "binary", used.facts)
    _check_labels(prepared, used)
    return Inputs(prepared, names)


def _in_order(dataset: Dataset, classes: int) -> tuple[Images, Support, list[str] | None]:
    if isinstance(dataset, Folder):
        images, names, found = dataset.in_order()
        return _relabeled(images, found, classes, dataset.path), "levels256", names
    source = dataset.load()
    images = source.train
    for more in (source.validation, source.test):
        images = images if more is None else images.join(more)
    return images, source.support, None


def _relabeled(images: Images, folders: list[str], classes: int, path: Path) -> Images:
    """The images with a conditional model's labels: the numbers that their folders are named by, unless there are as
    many folders as labels, which then are numbered in their order as in training.

    Raises:
        DataError: if the folders' names are no such numbers.
    """
    if not classes or images.labels is None or len(folders) == classes:
        return images
    numbers = [int(name) if name.isdecimal() else classes for name in folders]
    if max(numbers) >= classes:
        raise DataError(
            f"{path} has {len(folders)} subfolder(s) and the model {classes} labels; name them by those labels, "
            f"0 to {classes - 1}"
        )
    return replace(images, labels=np.array(numbers, np.int64)[images.labels])


def load_data(used: Trained, settings: Mapping[str, Any]) -> Data:
    """The data that a model was trained on, or those at `dataset.path`, which must be alike.

    Raises:
        DataError: if they are missing, or of another shape or support than the model's.
    """
    allow = settings["allow"]
    stored = with_local_folders(used.settings, settings["data_dir"])
    path = settings.get("dataset", {}).get("path")
    if path is not None:
        stored = stored | {"dataset": _elsewhere(stored["dataset"], used.facts, path)}
    dataset = parts.dataset(stored, () if allow is None else (allow,))
    source = dataset.load()
    if path is not None and source.test is None and source.validation is None:
        source = replace(source, test=source.train)  # nothing was trained on these: all of them count
    data = dataset.splits(source)
    _check_fit(data.facts.shape, data.facts.support, used.facts)
    return data


def _check_fit(shape: tuple[int, ...], support: str, facts: DataFacts) -> None:
    if shape != tuple(facts.shape):
        one, other = ("x".join(map(str, each)) for each in (shape, facts.shape))
        raise DataError(f"these images are {one}, the model's are {other}; resize them, or use another model")
    if support != facts.support and not (support == "levels256" and facts.support == "unit"):
        kinds = parts.SUPPORTS
        raise DataError(f"these images are {kinds[support]}, the model's are {kinds[facts.support]}; convert them")


def _elsewhere(stored: Mapping[str, Any], facts: DataFacts, path: str) -> dict[str, Any]:
    """The settings of a data set at a path, prepared as the stored one."""
    options = {"binarize": stored.get("binarize", "none"), "validation": None, "path": path}
    if not Path(path).expanduser().is_dir():
        return parts.option("dataset", "arrays") | options
    channels, height, width = facts.shape
    if height != width:
        raise DataError(f"{path}: the model's images, {height}x{width}, are not square; name an .npz file instead")
    kept = {key: stored[key] for key in ("on_error",) if key in stored}
    return parts.option("dataset", "folder") | options | kept | {"channels": channels, "image_size": height}


def choose(data: Data, name: str, used: Trained) -> Split:
    """A split by its name, which a conditional model must find labels in.

    Raises:
        ConfigError: if the data have no such split, or not the labels.
    """
    split = {"train": data.train, "validation": data.validation, "test": data.test}[name]
    if split is None:
        raise ConfigError("split=validation: the model was trained without one; choose test or train")
    _check_labels(split, used)
    return split


def _check_labels(split: Split, used: Trained) -> None:
    classes = used.model.classes
    if classes and split.labels is None:
        raise DataError("a conditional model needs a label for every image, and these have none")
    if classes and split.labels is not None and int(split.labels.max()) >= classes:
        raise DataError(f"the images have labels up to {int(split.labels.max())}, the model knows 0 to {classes - 1}")
