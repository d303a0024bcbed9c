"""The images that a command passes through a trained model: a split of its data, or a person's own."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vae_cli.build import parts, registry
from vae_cli.build.trained import Trained, with_local_folders
from vae_cli.constraints import FilePath, check_value
from vae_cli.data import AnnData, Arrays, Data, DataFacts, Dataset, Folder, Images, Source, Split, Table
from vae_cli.data.base import SPLITS, Support
from vae_cli.data.sources.folder import Listed
from vae_cli.errors import ConfigError, DataError, counted, printable, shortened
from vae_cli.inference.codes import Chunk, chunks
from vae_cli.inference.examples import MADE_BINARY
from vae_cli.models import Model
from vae_cli.system.paths import expand

FIXES = {  # for values of one support before a model of another
    ("levels256", "binary"): 'save (x > 127).astype("uint8")',
    ("unit", "binary"): 'save (x > 0.5).astype("uint8")',
    ("unit", "levels256"): 'save (255 * x).round().astype("uint8")',
}

OWN = (Arrays, Folder, Table, AnnData)  # data sets of a person's own, which may change

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Inputs:
    """Images ready for the model, in input order.

    Args:
        split: the images and their labels.
        names: of the files that they come from, if they come from files.
        table: the file that they are all the rows of, if it is a table.
    """

    split: Split
    names: list[str] | None = None
    table: Path | None = None

    def arrays(self, count: int) -> dict[str, np.ndarray]:
        """Return the labels, the factors and the file names of the first images, where there are any."""
        arrays = {}
        if self.split.labels is not None:
            arrays["label"] = self.split.labels[:count].cpu().numpy()
        if self.split.factors is not None:
            arrays["factors"] = self.split.factors[:count].cpu().numpy()
        if self.names is not None:
            arrays["file"] = np.array(self.names[:count])
        return arrays

    def chunks(self, model: Model, count: int, seed: int, title: str, noun: str = "image") -> Iterator[Chunk]:
        """Yield the first examples in chunks on the model's device, with a bar: the first one's number, x, y."""
        with tqdm(total=count, desc=title, unit=f" {noun}s", disable=None, leave=False) as bar:
            for chunk in chunks(model, self.split, count, seed):
                yield chunk
                bar.update(len(chunk[1]))


def read(trained: Trained, config: Config) -> Inputs:
    """Return the images that `input=` names, prepared as the training's were.

    It names `train`, `validation` or `test` of the model's data, a directory of images, or a file of arrays.

    Raises:
        ConfigError: if both `input=` and `dataset.path=` name a place.
        DataError: if there is no such thing, or it does not fit the model.
    """
    name, facts = config["input"], trained.facts
    if name in SPLITS:
        return Inputs(choose_split(load_data(trained, config), name, trained, "input"))
    if (path := config["dataset"]["path"]) is not None:
        raise ConfigError(
            f"dataset.path={path}: input={name} names the images already; leave out one of the two, or choose "
            "input=test, validation or train of dataset.path="
        )
    if not expand(name).exists():
        raise DataError(f"input={name}: there is no such file or directory; or name train, validation or test")
    options = _dataset_options(trained, name)
    is_threshold_ours = facts.is_image and facts.support == "binary" and options["binarize"] == "none"
    if is_threshold_ours:
        options["binarize"] = "threshold"
    if trained.facts.columns:
        options["split"] = None  # the rows are in their own order
    dataset: Dataset = registry.construct("dataset", options, {})
    images, support, names = _load_in_order(dataset, trained)
    if not is_threshold_ours:
        _check_bits(dataset)
    if support == "unit" and facts.support == "levels256":
        images, support = replace(images, values=np.rint(255 * images.values).astype(np.uint8)), "levels256"
    split = dataset.prepare(images, support, "input")
    if is_threshold_ours and support != "binary":
        _say([f"the images were {MADE_BINARY}"])
    _check_fit(tuple(split.shape), support if options.get("binarize", "none") == "none" else "binary", facts)
    _check_labels(split, trained)
    return Inputs(split, names, expand(name) if isinstance(dataset, Table) else None)


def load_data(trained: Trained, config: Config, is_gray: bool = False) -> Data:
    """Return the data that a model was trained on, or those at `dataset.path`, which must be alike.

    Args:
        trained: the model.
        config: a command's, with `dataset.path`, `data_dir` and `allow`.
        is_gray: return the images as they were before `dataset.binarize` made them binary; they are loaded again, and
            nothing is said of them a second time.

    Raises:
        DataError: if they are missing, or of another shape or support than the model's.
    """
    stored = with_local_folders(trained.settings, config["data_dir"])
    path = config.get("dataset", {}).get("path")
    if path is None:
        _check_place(stored["dataset"], "dataset" in config)
    else:
        check_value("dataset.path", path, FilePath)
        stored = stored | {"dataset": _dataset_options(trained, path)}
    dataset = parts.dataset(stored, () if config["allow"] is None else (config["allow"],))
    source = _load(dataset, trained.facts, has_notes=path is not None)
    if is_gray:
        dataset.binarize = "none"
        return dataset.splits(source) if path is None else _splits_at_path(dataset, source, trained.facts)
    if path is not None:
        _say(source.notes)
    data = dataset.splits(source) if path is None else _splits_at_path(dataset, source, trained.facts)
    _check_fit(data.facts.shape, data.facts.support, trained.facts)
    if path is None and data.facts.digest != trained.facts.digest and isinstance(dataset, OWN):
        place = printable(str(dataset.path))
        raise DataError(
            f"the data in {place} are not those that the model was trained on, and their splits may be others; put "
            f"those back, or score all that is there now: dataset.path={place}"
        )
    return data


def _check_place(stored: Config, has_key: bool) -> None:
    """Raise DataError if a person's own data are no longer where a model was trained on them."""
    path = stored.get("path")
    names = ("folder", "arrays", "table", "anndata")
    is_own = any(stored["_target_"] == parts.option("dataset", name)["_target_"] for name in names)
    if has_key and is_own and isinstance(path, str) and not expand(path).exists():
        raise DataError(
            f"{printable(path)}, which the model was trained on, does not exist here; set dataset.path= to where these "
            "data are now, or to others of their shape"
        )


def _splits_at_path(dataset: Dataset, source: Source, facts: DataFacts) -> Data:
    """Return the splits of data at another place: as in training if they are the training's, else all are for tests."""
    try:
        data = dataset.splits(source)
        if data.facts.digest == facts.digest:
            return data
    except ConfigError:  # of other data there may be fewer than were held out
        pass
    _check_bits(dataset)
    dataset.validation = None
    has_one_part = source.test is None and source.validation is None
    return dataset.splits(replace(source, test=source.train) if has_one_part else source)


def _check_bits(dataset: Dataset) -> None:
    """Raise DataError for bytes of 0 and 1 where a training's were gray: they may be black and white, or levels."""
    if isinstance(dataset, Arrays) and dataset.has_bits and dataset.binarize != "none":
        raise DataError(
            f"{printable(str(dataset.path))}: the values are integers of 0 and 1, and the model's data were gray, 0 to "
            '255: if 1 is white, save x.astype(bool); if 255 is, save (x / 255).astype("float32")'
        )


def choose_split(data: Data, name: str, trained: Trained, key: str = "split") -> Split:
    """Return a split by its name, which `key` was set to.

    Raises:
        ConfigError: if the data have no such split.
        DataError: if a conditional model finds no labels in it, or unknown ones.
    """
    split = {"train": data.train, "validation": data.validation, "test": data.test}[name]
    if split is None:
        raise ConfigError(f"{key}=validation: the model was trained without one; choose test or train")
    _check_labels(split, trained)
    return split


def _dataset_options(trained: Trained, path: str) -> dict[str, Any]:
    """Return the options of a data set at another path, prepared as the stored one."""
    stored, is_folder = trained.settings["dataset"], expand(path).is_dir()
    if trained.facts.columns:
        return stored | {"path": path}
    options = parts.option("dataset", "folder" if is_folder else "arrays")
    same_class = ("validation",) if stored["_target_"] == options["_target_"] else ()  # the same data, perhaps
    names = ("binarize", "range", "support", *same_class, *(("on_error",) if is_folder else ()))
    options |= {name: stored[name] for name in names if name in stored} | {"path": path}
    if not is_folder:
        return options
    channels, height, width = trained.facts.shape
    if height != width:
        raise DataError(f"{path}: the model's images, {height}x{width}, are not square; name an .npz file instead")
    return options | {"channels": channels, "image_size": height}


def _load(dataset: Dataset, facts: DataFacts, has_notes: bool = True) -> Source:
    """Load a data set, whose values are of the model's support where they can be."""
    if isinstance(dataset, Folder | Arrays) and has_notes:
        dataset.has_keys = False
    if isinstance(dataset, Table | AnnData):
        source = dataset.load(facts.columns, facts.class_names)
    else:
        source = dataset.load(facts.support) if isinstance(dataset, Arrays) else dataset.load()
    return source


def _say(notes: Iterable[str]) -> None:
    for note in notes:
        print(f"note: {note}", file=sys.stderr)


def _load_in_order(dataset: Dataset, trained: Trained) -> tuple[Images, Support, list[str] | None]:
    """Return all images of a data set in input order, their support and their files' names, if any."""
    if isinstance(dataset, Folder):
        dataset.has_keys = False
        listed = dataset.in_order()
        _say(listed.notes)
        return _with_model_labels(listed, trained, dataset.path), "levels256", listed.names
    source = _load(dataset, trained.facts)
    _say(source.notes)
    images = source.train
    for other in (source.validation, source.test):
        images = images if other is None else images.join(other)
    return images, source.support, None


def _with_model_labels(listed: Listed, trained: Trained, path: Path) -> Images:
    """Return the images with a conditional model's labels.

    Folders have the names of the model's classes where those have names. Else as many folders as labels are numbered
    in their order as in training; fewer or more are named by the labels.

    Raises:
        DataError: if the folders' names are no such names or numbers.
    """
    images, folders = listed.images, listed.classes
    classes, names = trained.model.classes, trained.facts.class_names
    if not classes or images.labels is None or (len(folders) == classes and not names):
        return images
    numbers = [names.index(name) if name in names else _number(name, classes) for name in folders]
    if None in numbers:
        unknown = folders[numbers.index(None)]
        labels = f"0 to {classes - 1}" + (f", or {shortened(names)}" if names else "")
        raise DataError(
            f"{path} has {counted(len(folders), 'subfolder')} and the model {classes} labels; "
            f"name them by those labels, {labels}: {printable(unknown)} is none"
        )
    return replace(images, labels=np.array(numbers, np.int64)[images.labels])


def _number(name: str, classes: int) -> int | None:
    return int(name) if name.isdecimal() and int(name) < classes else None


def _check_fit(shape: tuple[int, ...], support: str, facts: DataFacts) -> None:
    if shape != tuple(facts.shape):
        one, other = ("x".join(map(str, each)) for each in (shape, facts.shape))
        fix = "resize them, or use another model" if facts.is_image else "use a model of such data"
        raise DataError(f"these {facts.noun}s are {one}, the model's are {other}; {fix}")
    if support != facts.support and not (support == "levels256" and facts.support == "unit"):
        kinds, fix = parts.SUPPORTS, FIXES.get((support, facts.support), "convert them")
        raise DataError(f"these {facts.noun}s are {kinds[support]}, the model's are {kinds[facts.support]}; {fix}")


def _check_labels(split: Split, trained: Trained) -> None:
    classes = trained.model.classes
    if classes and split.labels is None:
        raise DataError(
            f"a conditional model needs a label for every {trained.facts.noun}, and these have none that it knows"
        )
    if classes and split.labels is not None and int(split.labels.max()) >= classes:
        most = int(split.labels.max())
        raise DataError(f"the {trained.facts.noun}s have labels up to {most}, the model knows 0 to {classes - 1}")
