"""The user's own images in one numpy file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np

from vae_cli.constraints import FilePath, Index, Positive
from vae_cli.data.base import IN_ORDER, SPLITS, UNBOUNDED, Binarize, Dataset, Source, Standardize, Support
from vae_cli.data.images import CHUNK, Images
from vae_cli.data.mapped import is_mapped, scratch
from vae_cli.data.sources import numpy_file, values
from vae_cli.data.sources.labels import factor_names, with_labels
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.data.sources.values import Missing
from vae_cli.errors import ConfigError, DataError
from vae_cli.system.paths import expand

CHANNELS = (1, 3)


class Arrays(Dataset):
    """Examples from an `.npz` file with arrays `train`, optional `valid` and `test`, or from an `.npy` file.

    Vectors are (N, D) and, where `support` is `real` or `counts`, sequences (N, C, L), of real numbers, counts or bits;
    see `vae_cli.data.sources.values`.

    Images are (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three channels, the same in every split.
    The support follows from the values: `binary` if all are 0 or 1, else `levels256` for uint8 and `unit` for
    floats in [0, 1]; values of 0 and 1 for a trained model are what the model takes. Values of other ranges are
    divided by `range`. An `.npy` file is mapped and may be larger than the memory. Labels are integers from 0 in
    `train_labels` (or `labels`), `valid_labels` and `test_labels`; those of shape (N, F) are the values of F factors of
    variation, whose names are in `factor_names`. An `.npz` file of one array under any name, and an `.npy` file, are
    the training set.

    Args:
        path: the file.
        range: the value of white, which is 255 in integers and 1 in floats if it is None.
        binarize: see `Dataset`.
        validation: see `Dataset`.
        support: what the values are; `auto` follows from them.
        standardize: of real values, with the training's constants: `zscore`, mean and standard deviation; `robust`,
            median and quartiles; `none`; `auto` is zscore.
        missing: `mask`, NaN is a missing value; `error`, there is to be none.
        split: `random`, what the file does not hold out is at random places; `order`, see `Dataset.is_in_order`.

    Raises:
        ConfigError: if there is no `path`.
    """

    name = "arrays"
    has_keys = True  # that the user can set, so that advice may name them; else `range` is that of a training
    has_bits = False  # once loaded: whether all values are integers of 0 and 1, and some are 1

    def __init__(
        self,
        path: FilePath | None = None,
        range: Positive | None = None,
        binarize: Binarize = "none",
        validation: Index | None = None,
        support: Literal["auto"] | Support = "auto",
        standardize: Standardize = "auto",
        missing: Missing = "mask",
        split: Literal["random", "order"] = "random",
    ) -> None:
        super().__init__(binarize, validation)
        if not path:
            raise ConfigError("dataset.path is not set: name an .npz or .npy file")
        self.path, self.white = expand(str(path)), range
        self.support: Support | None = None if support == "auto" else support
        self.standardize, self.missing, self.is_in_order = standardize, missing, split == IN_ORDER

    def load(self, support: Support | None = None) -> Source:
        """Read the splits in the file, as (N, C, H, W).

        Args:
            support: of the model that they are for; None is decided by the values.

        Raises:
            DataError: if the file is missing or broken, or an array in it is no set of images or labels.
        """
        arrays, notes = numpy_file.read(self.path)
        source = _source(arrays, self.white, support or self.support, self.has_keys, self.missing, support is None)
        if source.support in UNBOUNDED and self.binarize != "none":
            raise ConfigError(f"dataset.binarize={self.binarize} is of images, and these are {source.support} values")
        parts = [arrays[split].values for split in SPLITS if split in arrays]
        are_integers = source.support == "binary" and all(each.dtype.kind in "iu" for each in parts)
        self.has_bits = are_integers and any(each.max() == 1 for each in parts)
        return replace(source, notes=(*notes, *source.notes))


class InMemory(Dataset):
    """Images in arrays of Python's own, which are what `Arrays` finds in a file.

    Args:
        arrays: an array (N, H, W), (N, C, H, W) or (N, H, W, C); or several by the names that an .npz file has for
            them, such as `train`, `train_labels` and `test`. Tensors are taken too.
        binarize: see `Dataset`.
        validation: see `Dataset`.
    """

    name = "arrays"

    def __init__(self, arrays: Any, binarize: Binarize = "none", validation: Index | None = None) -> None:
        super().__init__(binarize, validation)
        self.arrays = arrays if isinstance(arrays, Mapping) else {"train": arrays}

    def load(self) -> Source:
        """Return the splits, as (N, C, H, W).

        Raises:
            DataError: if an array is no set of images or labels.
        """
        names, notes = numpy_file.roles("dataset", list(self.arrays))
        arrays = {role: NamedArray(f"dataset {name}", np.asarray(self.arrays[name])) for role, name in names.items()}
        source = _source(arrays, None, None, has_range=False)
        return replace(source, notes=(*notes, *source.notes))


def _is_plain(values: np.ndarray, white: float) -> bool:
    """Return whether values need no `white` of other data: bytes beside one of more bits, and floats in [0, 1]."""
    if values.dtype.kind == "f":
        return _extent(values, exact=True).high <= 1
    return values.dtype == np.bool_ or (values.dtype == np.uint8 and white > 255)


def _source(
    arrays: Mapping[str, NamedArray],
    white: float | None,
    support: Support | None,
    has_range: bool,
    missing: Missing = "mask",
    is_new: bool = True,
) -> Source:
    """Return the splits of arrays by their roles.

    Where the user cannot set `dataset.range`, no advice names it, and `white` is a training's. What is not new is for a
    trained model.
    """
    if arrays["train"].values.ndim == 2 or support in UNBOUNDED:
        return _source_of_values(arrays, support, missing, is_new)
    images = {split: _channels_first(arrays[split]) for split in SPLITS if split in arrays}
    if white is not None and not has_range and all(_is_plain(array.values, white) for array in images.values()):
        white = None
    extents = _extents(list(images.values()), exact=white is not None)
    support = _support(list(images.values()), extents, white, support, has_range)
    splits = {
        split: with_labels(Images(_stored(array.values, support, white)), arrays.get(f"{split}_labels"))
        for split, array in images.items()
    }
    notes = () if support == "binary" else _notes(list(images.values()), extents, white)
    if white is not None and not has_range:
        notes = (*notes, f"the value of white is {white:g}, as in the training (dataset.range)")
    names = factor_names(list(splits.values()), arrays)
    return Source(splits["train"], splits.get("validation"), splits.get("test"), support, notes, factor_names=names)


def _source_of_values(
    arrays: Mapping[str, NamedArray], wanted: Support | None, missing: Missing, is_new: bool
) -> Source:
    """Return the splits of arrays of vectors or sequences."""
    splits = {split: arrays[split] for split in SPLITS if split in arrays}
    every = list(splits.values())
    example = {2: "vectors", 3: "sequences"}.get(every[0].values.ndim, "examples")
    values.check_shapes(every, example)
    contents = {split: values.contents(array.values) for split, array in splits.items()}
    support = values.support_of(list(contents.values()), every, wanted, not is_new)
    for split, array in splits.items():
        values.check_values(array, contents[split], support, missing, example)
    has_missing = any(each.missing for each in contents.values())
    stored = {
        split: with_labels(Images(values.stored(array.values, support, has_missing)), arrays.get(f"{split}_labels"))
        for split, array in splits.items()
    }
    if is_new and support == "real":
        values.check_columns(every[0].name, values.chunks(every[0].values))
    notes = []
    if wanted is None and support == "real" and all(each.are_whole and each.low >= 0 for each in contents.values()):
        notes.append("all values are whole numbers; if they count something, set dataset.support=counts")
    if count := sum(each.missing for each in contents.values()):
        size = sum(array.values.size for array in every)
        notes.append(f"{count:,} of {size:,} values are missing ({count / size:.1%})")
    return Source(
        stored["train"],
        stored.get("validation"),
        stored.get("test"),
        support,
        tuple(notes),
        has_missing=contents["train"].missing > 0,
        factor_names=factor_names(list(stored.values()), arrays),
    )


@dataclass(frozen=True)
class Extent:
    """The smallest and the largest value of an array (NaN if it holds any), and whether all are 0 or 1."""

    low: float
    high: float
    binary: bool


def _channels_first(array: NamedArray) -> NamedArray:
    """Return the array as (N, C, H, W), without a copy."""
    values, name, shape = array.values, array.name, _shape(array.values.shape)
    if values.dtype.kind not in "buif":
        raise DataError(f"{name} has dtype {values.dtype}; save bytes (uint8) or floats in [0, 1]")
    if values.ndim not in (3, 4):
        raise DataError(
            f"{name} is {shape}; reshape it to (N, H, W), (N, C, H, W), (N, H, W, C) or, of vectors, (N, D)"
        )
    if values.size == 0:
        raise DataError(f"{name} is empty ({shape}); save it with images in it")
    if values.ndim == 3:
        return NamedArray(name, values[:, None])
    if values.shape[1] in CHANNELS:
        return array
    if values.shape[3] in CHANNELS:
        return NamedArray(name, values.transpose(0, 3, 1, 2))
    raise DataError(f"{name} is {shape}; images need one or three channels, (N, C, H, W) or (N, H, W, C)")


def _extents(arrays: list[NamedArray], exact: bool) -> list[Extent]:
    """Return the extents of all splits; of bytes that are not binary 0 to 255 unless they are to be `exact`.

    Raises:
        DataError: if their shapes differ.
    """
    train = arrays[0]
    for array in arrays:
        one, other = _shape(array.values.shape[1:]), _shape(train.values.shape[1:])
        if one != other:
            raise DataError(f"{array.name} has images of {one}, but train of {other}; make them alike")
    return [_extent(array.values, exact) for array in arrays]


def _support(
    arrays: list[NamedArray], extents: list[Extent], white: float | None, wanted: Support | None, has_range: bool
) -> Support:
    """Return the support of all splits together; `wanted` where the values are all 0 or 1 and may be anything.

    Raises:
        DataError: if their types differ, or their values fit no support.
    """
    is_binary = white is None and all(extent.binary for extent in extents)
    if is_binary and wanted in (None, "binary"):
        return "binary"
    for array, extent in zip(arrays, extents):
        if not is_binary:
            _check_values(array, extent, white, has_range)
    kinds = {"levels256" if array.values.dtype.kind in "iu" else "unit" for array in arrays}
    if len({array.values.dtype.kind for array in arrays}) > 1 and not is_binary:
        types = ", ".join(f"{array.name} is {array.values.dtype}" for array in arrays)
        raise DataError(f"{types}; save every split as uint8, or every split as floats in [0, 1]")
    return "levels256" if kinds == {"levels256"} or (is_binary and wanted == "levels256") else "unit"


def _notes(arrays: list[NamedArray], extents: list[Extent], white: float | None) -> tuple[str, ...]:
    """Return a line about arrays of bytes that are 0 and 1 only, which may be meant to be black and white."""
    are_bytes = all(array.values.dtype.kind in "iu" for array in arrays) and white is None
    if are_bytes and all(extent.binary for extent in extents) and any(extent.high == 1 for extent in extents):
        return ("the values are 0 and 1 and were taken as levels of 0 to 255; if 1 is white, save them as bool",)
    return ()


def _extent(values: np.ndarray, exact: bool) -> Extent:
    if values.dtype == np.bool_:
        values = values.view(np.uint8)  # a file may hold other bytes under that name
    low, high, binary = np.inf, -np.inf, True
    for chunk in _chunks(values):
        # Unlike min() and max(), these two keep a NaN.
        low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
        binary = binary and bool(((chunk == 0) | (chunk == 1)).all())
        if values.dtype == np.uint8 and not binary and not exact:
            return Extent(0, 255, binary)  # the rest of the bytes changes nothing
    return Extent(float(low), float(high), binary)


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows some megabytes at a time, so that a mapped file is never in memory as a whole."""
    rows = max(1, CHUNK // max(1, values[0].nbytes))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def _check_values(array: NamedArray, extent: Extent, white: float | None, has_range: bool) -> None:
    """Raise DataError unless an array that is not binary holds bytes, floats in [0, 1], or values up to `white`."""
    name, low, high, dtype = array.name, extent.low, extent.high, array.values.dtype
    if dtype == np.bool_ and high > 1:
        raise DataError(f'{name} says bool and holds bytes up to {high:g}; save it .astype("uint8")')
    if dtype.kind == "f" and not np.isfinite([low, high]).all():
        raise DataError(f"{name} holds NaN or infinite values; correct or remove those images")
    if white is not None and not (low >= 0 and high <= white):
        fix = "" if has_range else " of the training; rescale or clip them"
        raise DataError(f"{name} has values from {low:.9g} to {high:.9g}, outside of 0 to dataset.range={white:g}{fix}")
    if white is not None or dtype == np.uint8:
        return
    if dtype.kind != "f":
        bytes_ = low >= 0 and high <= 255
        fix = 'save it .astype("uint8")' if bytes_ else 'rescale it to 0 … 255 and save it .astype("uint8")'
        fix += f", or set dataset.range={2 ** int(high).bit_length() - 1}" if low >= 0 and has_range else ""
        raise DataError(f"{name} is {dtype} with values from {low:g} to {high:g}; {fix}")
    if low < 0 or high > 1:
        fix = _rescale(low, high, has_range)
        raise DataError(f"{name} has floats from {low:.9g} to {high:.9g}, not in [0, 1]; {fix}")


def _rescale(low: float, high: float, has_range: bool) -> str:
    if low >= 0 and 2 < high <= 255:
        key = " (dataset.range=255)" if has_range else ""
        return f'they look like bytes: divide by 255{key}, or save them .astype("uint8")'
    fix = "rescale them, perhaps by (x + 1) / 2" if -1 <= low < 0 and high <= 1 else "rescale or clip them"
    return f"{fix}, or set dataset.support=real if they are no images" if has_range else fix


def _stored(values: np.ndarray, support: Support, white: float | None) -> np.ndarray:
    """Return the values as uint8 or, for `unit`, float32.

    They are copied only where the type or the range changes, those of a mapped file to the disk.
    """
    dtype = np.dtype(np.float32 if support == "unit" else np.uint8)
    if support == "binary" and values.dtype == np.bool_:
        return values.view(np.uint8)  # of which `_extent` saw that they are 0 and 1
    divisor = white if white and values.dtype != np.bool_ else 255.0 if values.dtype.kind in "iu" else 1.0
    factor = {"binary": divisor, "unit": 1.0, "levels256": 255.0}[support] / divisor
    if factor == 1 and values.dtype == dtype:
        return values

    def convert(chunk: np.ndarray) -> np.ndarray:
        scaled = chunk if factor == 1 else np.multiply(chunk, factor, dtype=np.float32)
        return (np.rint(scaled) if support == "levels256" and factor != 1 else scaled).astype(dtype)

    if is_mapped(values):
        return scratch(map(convert, _chunks(values)), dtype, values.shape)
    return convert(values)


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
