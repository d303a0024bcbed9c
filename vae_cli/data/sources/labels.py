"""Labels and factors of variation in the arrays of a numpy file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from vae_cli.data.images import Images
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.errors import DataError


def with_labels(images: Images, labels: NamedArray | None) -> Images:
    """Return the images with labels (N,), or with factors (N, F) where each has several numbers.

    Raises:
        DataError: if the labels are no integers from 0 on, or not as many as the images.
    """
    if labels is None:
        return images
    values, name, count = labels.values, labels.name, len(images)
    if values.dtype.kind not in "biu":
        raise DataError(f'{name} has dtype {values.dtype}; labels are integers: save them .astype("int64")')
    if values.shape != (count,) and (values.ndim != 2 or len(values) != count or values.shape[1] < 2):
        shape = "x".join(map(str, values.shape)) or "a single number"
        raise DataError(
            f"{name} is {shape} for {count} images; give each image one label, ({count},), or a number for each of "
            f"several factors, ({count}, F)"
        )
    if values.ndim == 2 and ((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all():
        raise DataError(
            f"{name} is {values.shape[0]}x{values.shape[1]} for {count} images and one-hot; save labels.argmax(1)"
        )
    values = values.astype(np.int64)
    if values.min() < 0:
        raise DataError(f"{name} has a negative label, {values.min()}; number the classes from 0")
    return replace(images, labels=values) if values.ndim == 1 else replace(images, factors=values)


def factor_names(splits: Sequence[Images], arrays: Mapping[str, NamedArray]) -> tuple[str, ...]:
    """Return the names of the factors, none where there are no factors.

    They are in the array `factor_names`, else `factor0`, `factor1` and so on.

    Raises:
        DataError: if the splits have unlike numbers of factors, or the names are not one for each.
    """
    counts = {split.factors.shape[1] for split in splits if split.factors is not None}
    if len(counts) > 1:
        listed = " and ".join(map(str, sorted(counts)))
        raise DataError(f"the labels of the splits have {listed} factors; give all of them the same factors")
    count, names = max(counts, default=0), arrays.get("factor_names")
    if names is None or not count:
        return tuple(f"factor{number}" for number in range(count))
    try:
        texts = np.char.decode(names.values, "utf-8") if names.values.dtype.kind == "S" else names.values
    except UnicodeDecodeError as error:
        fix = 'save texts, such as numpy.char.decode(names, "latin-1")'
        raise DataError(f"{names.name} holds bytes that are not UTF-8; {fix}") from error
    if texts.dtype.kind != "U" or texts.shape != (count,) or len(set(texts.tolist())) < count:
        raise DataError(f"{names.name} is not a different text for each of the {count} factors; correct or remove it")
    return tuple(texts.tolist())
