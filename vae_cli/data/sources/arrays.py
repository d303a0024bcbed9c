"""The user's own images in one numpy file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vae_cli.constraints import FilePath, Index
from vae_cli.data.base import SPLITS, Binarize, Dataset, Source, Support
from vae_cli.data.images import CHUNK, Images
from vae_cli.data.mapped import is_mapped, scratch
from vae_cli.data.sources import numpy_file
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.errors import ConfigError, DataError

CHANNELS = (1, 3)


class Arrays(Dataset):
    """Images from an `.npz` file with arrays `train`, optional `valid` and `test`, or from an `.npy` file.

    Shapes are (N, H, W), (N, C, H, W) or (N, H, W, C) with one or three channels, the same in every split.
    The support follows from the values: `binary` if all are 0 or 1, else `levels256` for uint8 and `unit` for
    floats in [0, 1]. An `.npy` file is mapped and may be larger than the memory. Labels are integers from 0 in
    `train_labels` (or `labels`), `valid_labels` and `test_labels`. An `.npz` file of one array under any name, and
    an `.npy` file, are the training set.

    Args:
        path: the file.
        binarize: see `Dataset`.
        validation: see `Dataset`.

    Raises:
        ConfigError: if there is no `path`.
    """

    name = "arrays"

    def __init__(
        self, path: FilePath | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(binarize, validation)
        if not path:
            raise ConfigError("dataset.path is not set: name an .npz or .npy file of images")
        self.path = Path(str(path)).expanduser()

    def load(self) -> Source:
        """Read the splits in the file, as (N, C, H, W).

        Raises:
            DataError: if the file is missing or broken, or an array in it is no set of images or labels.
        """
        arrays = numpy_file.read(self.path)
        images = {split: _channels_first(arrays[split]) for split in SPLITS if split in arrays}
        support = _support(list(images.values()))
        splits = {
            split: Images(_stored(array.values, support), _labels(arrays.get(f"{split}_labels"), array))
            for split, array in images.items()
        }
        return Source(splits["train"], splits.get("validation"), splits.get("test"), support)


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
        raise DataError(f"{name} is {shape}; reshape it to (N, H, W), (N, C, H, W) or (N, H, W, C)")
    if values.size == 0:
        raise DataError(f"{name} is empty ({shape}); save it with images in it")
    if values.ndim == 3:
        return NamedArray(name, values[:, None])
    if values.shape[1] in CHANNELS:
        return array
    if values.shape[3] in CHANNELS:
        return NamedArray(name, values.transpose(0, 3, 1, 2))
    raise DataError(f"{name} is {shape}; images need one or three channels, (N, C, H, W) or (N, H, W, C)")


def _support(arrays: list[NamedArray]) -> Support:
    """Return the support of all splits together.

    Raises:
        DataError: if their shapes or types differ, or their values fit no support.
    """
    train = arrays[0]
    for array in arrays:
        one, other = _shape(array.values.shape[1:]), _shape(train.values.shape[1:])
        if one != other:
            raise DataError(f"{array.name} has images of {one}, but train of {other}; make them alike")
    extents = [_extent(array.values) for array in arrays]
    if all(extent.binary for extent in extents):
        return "binary"
    for array, extent in zip(arrays, extents):
        _check_values(array, extent)
    kinds = {array.values.dtype.kind for array in arrays}
    if len(kinds) > 1:
        types = ", ".join(f"{array.name} is {array.values.dtype}" for array in arrays)
        raise DataError(f"{types}; save every split as uint8, or every split as floats in [0, 1]")
    return "unit" if kinds == {"f"} else "levels256"


def _extent(values: np.ndarray) -> Extent:
    if values.dtype == np.bool_:
        values = values.view(np.uint8)  # a file may hold other bytes under that name
    low, high, binary = np.inf, -np.inf, True
    for chunk in _chunks(values):
        # Unlike min() and max(), these two keep a NaN.
        low, high = np.minimum(low, chunk.min()), np.maximum(high, chunk.max())
        binary = binary and bool(((chunk == 0) | (chunk == 1)).all())
        if values.dtype == np.uint8 and not binary:
            return Extent(0, 255, binary)  # the rest of the bytes changes nothing
    return Extent(float(low), float(high), binary)


def _chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows some megabytes at a time, so that a mapped file is never in memory as a whole."""
    rows = max(1, CHUNK // max(1, values[0].nbytes))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def _check_values(array: NamedArray, extent: Extent) -> None:
    """Raise DataError unless an array that is not binary holds bytes or floats in [0, 1]."""
    name, low, high, dtype = array.name, extent.low, extent.high, array.values.dtype
    if dtype == np.uint8:
        return
    if dtype == np.bool_ and high > 1:
        raise DataError(f'{name} says bool and holds bytes up to {high:g}; save it .astype("uint8")')
    if dtype.kind != "f":
        bytes_ = low >= 0 and high <= 255
        fix = 'save it .astype("uint8")' if bytes_ else 'rescale it to 0 … 255 and save it .astype("uint8")'
        raise DataError(f"{name} is {dtype} with values from {low:g} to {high:g}; {fix}")
    if not np.isfinite([low, high]).all():
        raise DataError(f"{name} holds NaN or infinite values; correct or remove those images")
    if low < 0 or high > 1:
        raise DataError(f"{name} has floats from {low:.9g} to {high:.9g}, not in [0, 1]; {_rescale(low, high)}")


def _rescale(low: float, high: float) -> str:
    if low >= 0 and 2 < high <= 255:
        return 'they look like bytes: divide by 255, or save them .astype("uint8")'
    if -1 <= low < 0 and high <= 1:
        return "rescale them, perhaps by (x + 1) / 2"
    return "rescale or clip them"


def _stored(values: np.ndarray, support: Support) -> np.ndarray:
    """Return the values as uint8 or, for `unit`, float32.

    They are copied only where the type changes, those of a mapped file to the disk.
    """
    dtype = np.dtype(np.float32 if support == "unit" else np.uint8)
    if values.dtype == np.bool_:
        return values.view(np.uint8)  # of which `_extent` saw that they are 0 and 1
    if values.dtype == dtype:
        return values
    if is_mapped(values):
        return scratch(_chunks(values), dtype, values.shape)
    return values.astype(dtype)


def _labels(labels: NamedArray | None, images: NamedArray) -> np.ndarray | None:
    """Return the labels (N,) as int64."""
    if labels is None:
        return None
    values, name, count = labels.values, labels.name, len(images.values)
    if values.dtype.kind not in "biu":
        raise DataError(f'{name} has dtype {values.dtype}; labels are integers: save them .astype("int64")')
    if values.shape != (count,):
        raise DataError(f"{name} is {_shape(values.shape)} for {count} images; give each image one label")
    values = values.astype(np.int64)
    if values.min() < 0:
        raise DataError(f"{name} has a negative label, {values.min()}; number the classes from 0")
    return values


def _shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "a single number"
