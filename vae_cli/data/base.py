"""Data sets: up to three splits of examples, a support, and a way to binarize them."""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.constraints import Index
from vae_cli.data.columns import Column, as_columns
from vae_cli.data.images import Images, Split
from vae_cli.data.mapped import scratch
from vae_cli.errors import ConfigError, printable, shortened

Support = Literal["binary", "levels256", "unit", "real", "counts", "mixed"]
UNBOUNDED = ("real", "counts", "mixed")  # supports of values that are no images', and are preprocessed
Standardize = Literal["auto", "zscore", "robust", "none"]
Binarize = Literal["none", "threshold", "static", "dynamic"]
SPLITS = ("train", "validation", "test")
IN_ORDER = "order"  # dataset.split=order

# The held-out images and the binarized validation and test images are the same in every run, whatever its seed.
FIXED_SEED = 20131220
DIGESTED = 1 << 28  # bytes of images that the digest looks at


@dataclass(frozen=True)
class Source:
    """A data set before anything is held out or binarized; `validation` and `test` may be missing.

    `notes` are lines about it that its user should read; `class_names` are the names of the labels from 0 on, where
    they have any; `has_missing` says that training examples have missing values, which are NaN; `columns` are those of
    a table; `factor_names` are the names of the factors, where there are any.
    """

    train: Images
    validation: Images | None
    test: Images | None
    support: Support
    notes: tuple[str, ...] = ()
    class_names: tuple[str, ...] = ()
    has_missing: bool = False
    columns: tuple[Column, ...] = ()
    factor_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataFacts:
    """The facts about its data that a model needs; also all that sampling needs once the data are gone.

    Args:
        name: the dataset option's name.
        shape: of an example: (C, H, W) of an image, (D,) of a vector.
        support: one of `Support`, after binarization.
        classes: number of classes, 0 unless every split has labels.
        size: number of training examples.
        digest: of the training examples, or of a part of them spread evenly if there are many. Sets with other
            digests differ.
        class_names: names of the labels from 0 on, where they have any.
        standardize: how real values are standardized, `zscore`, `robust` or `none`.
        has_missing: training examples have missing values.
        columns: of a table, whose row a vector is.
        factor_names: names of the factors of variation, where every split has factors.
        factor_sizes: how many values each factor has.
    """

    name: str
    shape: tuple[int, ...]
    support: Support
    classes: int
    size: int
    digest: str = ""
    class_names: tuple[str, ...] = ()
    standardize: str = "none"
    has_missing: bool = False
    columns: tuple[Column, ...] = ()
    factor_names: tuple[str, ...] = ()
    factor_sizes: tuple[int, ...] = ()

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> DataFacts:
        """Return the facts that `dataclasses.asdict` has made plain."""
        return cls(**{**values, "columns": as_columns(values.get("columns", ()))})

    @property
    def is_image(self) -> bool:
        """Whether an example is a picture, with values in [0, 1]."""
        return len(self.shape) == 3 and self.support not in UNBOUNDED

    @property
    def noun(self) -> str:
        """What an example is called."""
        return "image" if self.is_image else {1: "row", 2: "sequence"}.get(len(self.shape), "example")

    def __post_init__(self) -> None:
        numbers = [*self.shape, self.classes + 1, self.size]
        if not self.shape or not all(isinstance(n, int) and n > 0 for n in numbers):
            raise ValueError(f"no data have the shape {self.shape}, {self.classes} classes and size {self.size}")
        if self.support not in get_args(Support):
            raise ValueError(f"no data have the support {self.support}")


@dataclass(frozen=True)
class Data:
    """Three splits (no validation where nothing selects a model), the facts about them, and notes for the user."""

    train: Split
    validation: Split | None
    test: Split
    facts: DataFacts
    notes: tuple[str, ...] = ()


class Dataset(ABC):
    """A data set by name: `load` reads the examples, `splits` holds some out and binarizes.

    Args:
        binarize: `none`; `threshold` (at one half); `static` (every pixel drawn once, with its value as the
            probability of a one); or `dynamic` (training pixels drawn anew at every use, the others once).
        validation: images to hold out of the training set for model selection. None uses the set's own
            validation split, or a tenth of the training images; 0 trains on all and selects nothing.
    """

    name: str
    test_fraction = 0.1
    is_in_order = False  # held out are the last examples, not some at random: a time series' future
    is_sorted = False  # by their factors, so that the first examples are alike: the splits are shuffled
    standardize: Standardize = "auto"

    def __init__(self, binarize: Binarize = "none", validation: Index | None = None) -> None:
        self.binarize = binarize
        self.validation = validation

    @abstractmethod
    def load(self) -> Source:
        """Find, check and read the examples."""

    def splits(self, source: Source | None = None) -> Data:
        """Return the three splits of what was loaded, or is loaded now, ready to use.

        Raises:
            DataError: if the images are missing or broken.
            ConfigError: if more images are to be held out than there are.
        """
        source = source or self.load()
        if self.is_sorted:
            source = _shuffled(source)
        source = self._with_test(source)
        train, validation = self._hold_out(source)
        assert source.test is not None
        dynamic = self.binarize == "dynamic"
        binary = self.binarize != "none" or source.support == "binary"
        every = [split for split in (train, validation, source.test) if split is not None]
        classes, factor_sizes = _classes([split.labels for split in every]), _factor_sizes(every)
        facts = DataFacts(
            name=name_of(self),
            shape=tuple(int(n) for n in train.values.shape[1:]),
            support="binary" if binary else source.support,
            classes=classes,
            size=len(train),
            digest=_digest(train),
            class_names=source.class_names[:classes],
            standardize=self._standardize(source.support),
            has_missing=source.has_missing,
            columns=source.columns,
            factor_names=source.factor_names if factor_sizes else (),
            factor_sizes=factor_sizes,
        )
        return Data(
            train=self.prepare(train, source.support, "train", dynamic),
            validation=None if validation is None else self.prepare(validation, source.support, "validation"),
            test=self.prepare(source.test, source.support, "test"),
            facts=facts,
            notes=source.notes,
        )

    def _standardize(self, support: Support) -> str:
        if support not in ("real", "mixed"):
            return "none"
        return "zscore" if self.standardize == "auto" else self.standardize

    def _with_test(self, source: Source) -> Source:
        if source.test is not None:
            return source
        if len(source.train) == 1:
            noun = "image" if source.train.values.ndim == 4 else "example"
            note = f"there is one {noun} alone: it is the test set too, whose numbers say nothing about others"
            return replace(source, test=source.train, notes=(*source.notes, note))
        count = max(1, round(len(source.train) * self.test_fraction))
        train, test = _divide(source.train, count, "test", self.is_in_order)
        return replace(source, train=train, test=test)

    def _hold_out(self, source: Source) -> tuple[Images, Images | None]:
        """Return the training images, and the validation images if there are to be any."""
        train, own, count = source.train, source.validation, self.validation
        if own is not None:
            if count == 0:
                return train.join(own), None
            if count not in (None, len(own)):
                raise ConfigError(
                    f"dataset.validation={count}: the data have a validation split of their own with {len(own)} "
                    "examples; leave it at null, or 0 to train on those too and select nothing"
                )
            return train, own
        if count is None:
            count = round(len(train) * 0.1)
        if count >= len(train):
            raise ConfigError(
                f"dataset.validation={count} leaves nothing of {len(train)} training examples; choose fewer"
            )
        return (train, None) if count == 0 else _divide(train, count, "validation", self.is_in_order)

    def prepare(self, images: Images, support: Support, name: str, dynamic: bool = False) -> Split:
        """Return images as a split, binarized as the set is; `name` seeds the drawing of pixels."""
        return as_split(images, support, self.binarize, name, dynamic)


def as_split(images: Images, support: Support, binarize: Binarize, name: str, dynamic: bool = False) -> Split:
    """Return images as a split, binarized unless they are binary; `name` seeds the drawing of pixels."""
    split = Split.of(images, 255.0 if support == "levels256" else 1.0)
    if binarize == "none" or support == "binary":
        return split
    if dynamic:
        return replace(split, dynamic=True)
    generator = noise.generator(FIXED_SEED, "binarize", name)

    def binary(values: Tensor) -> np.ndarray:
        if binarize == "threshold":
            return (values >= split.scale / 2).byte().numpy()
        return noise.binarize(values, split.scale, generator).byte().numpy()

    chunks = map(binary, split.chunks())
    shape = (len(split), *split.shape)
    values = scratch(chunks, np.uint8, shape) if split.mapped else np.concatenate(list(chunks))
    return Split.of(replace(images, values=values, rows=None), 1.0)


def name_of(dataset: Dataset | type[Dataset]) -> str:
    """Return a data set's name; of one that has none its class's."""
    cls = dataset if isinstance(dataset, type) else type(dataset)
    return str(getattr(dataset, "name", cls.__name__.lower()))


def difference(one: Mapping[str, Any], other: Mapping[str, Any], there: str = "there", here: str = "here") -> str:
    """Return in what the facts about two sets of data differ, as plain data."""
    keys = [key for key in other if one.get(key) != other[key] and key not in ("digest", "class_names")]
    if "columns" in keys:
        names = [[column.name for column in as_columns(each.get("columns", ()))] for each in (one, other)]
        changed = sorted(set(names[0]) ^ set(names[1]))
        return f"other columns: {shortened(changed)}" if changed else "other kinds of values in its columns"
    if "factor_names" in keys:
        return "other factors"
    what = ", ".join(f"{key} {one.get(key)} {there} and {other[key]} {here}" for key in keys)
    same_names = one.get("class_names") == other.get("class_names")
    return what or ("other images or labels" if same_names else "other names of classes")


def label_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a label as every terminal can show it, its number where it has none."""
    return printable(names[label]) if label < len(names) else str(label)


def label_names(labels: Sequence[int], names: Sequence[str]) -> np.ndarray:
    """Return the names of labels as an array of texts."""
    return np.array([label_name(label, names) for label in labels], object)


def _classes(labels: list[np.ndarray | None]) -> int:
    """Return the number of classes, 0 unless every split has labels."""
    if any(values is None for values in labels):
        return 0
    return 1 + int(max(values.max() for values in labels if values is not None))


def _factor_sizes(splits: list[Images]) -> tuple[int, ...]:
    """Return how many values each factor has, none unless every split has factors."""
    factors = [split.factors for split in splits]
    if any(values is None for values in factors):
        return ()
    largest = np.max([values.max(0) for values in factors if values is not None], axis=0)
    return tuple(1 + int(value) for value in largest)


def _digest(images: Images) -> str:
    split, crc = Split.of(images, 1.0), 0
    for beside in (images.labels, images.factors):
        crc = crc if beside is None else zlib.crc32(np.ascontiguousarray(beside).data, crc)
    for chunk in split.chunks(every=1 + len(split) * split.image_bytes // DIGESTED):
        crc = zlib.crc32(np.ascontiguousarray(chunk.numpy()).data, crc)
    return f"{crc:08x}"


def _shuffled(source: Source) -> Source:
    """Return a set whose examples are in an order at random, the same in every run."""

    def shuffle(images: Images, name: str) -> Images:
        generator = noise.generator(FIXED_SEED, "order", name)
        return images.take(torch.randperm(len(images), generator=generator).numpy())

    test = None if source.test is None else shuffle(source.test, "test")
    return replace(source, train=shuffle(source.train, "train"), test=test)


def _divide(images: Images, count: int, purpose: str, is_in_order: bool) -> tuple[Images, Images]:
    """Return all but `count` images, and `count` images, the last ones or at random places; each part keeps the
    order."""
    if is_in_order:
        order = np.arange(len(images))[::-1]
    else:
        generator = noise.generator(FIXED_SEED, "hold out", purpose)
        order = torch.randperm(len(images), generator=generator).numpy()
    return images.take(np.sort(order[count:])), images.take(np.sort(order[:count]))
