"""Examples that are given in Python, prepared as those of a trained model's data were."""

from __future__ import annotations

import inspect
import math
import warnings
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_cli.data import DataFacts, Images, Split, pictures
from vae_cli.data.base import Binarize, Support, as_split
from vae_cli.data.columns import kinds_of
from vae_cli.data.sources.table_columns import vectors_of
from vae_cli.errors import DataError, at, describe

MADE_BINARY = "made black and white, as the model's pixels are: white from one half on"
KINDS = "give a tensor, an array, a PIL image, or a list of them"


def as_examples(x: Any, facts: DataFacts, binarize: Binarize) -> Split:
    """Return examples as a split of the model's support.

    Examples that are no images keep their values, NaN where one is missing; a data frame has the columns of the model's
    table, in any order.

    Floats for a model of 8-bit images are rounded to their levels. For a model of binary pixels, bool and floats of 0
    and 1 stay; other floats and PIL images are gray and are binarized as its own data were. Bytes are what its data
    held: 0 to 255 if those were binarized, else 0 and 1. A tensor that needs a gradient is left as it is, so that the
    gradient reaches it.

    Args:
        x: a tensor, an array or a PIL image of one example or of several, a list of examples, or a data frame.
        facts: about the model's data.
        binarize: of the model's data. If it is `none`, gray images get `threshold`, with a warning.

    Raises:
        DataError: for values of another type, shape or range, with the fix.
    """
    if not facts.is_image:
        return Split(_values(x, facts), None, 1.0)
    values = _shaped(_joined(x, facts), facts.shape)
    if values.requires_grad:
        _check_range(values)
        return Split(values.float(), None, 1.0)
    values, support = _with_support(values.cpu(), facts.support, binarize)
    white = 255.0 if support == "levels256" else 1.0
    if facts.support != "binary" or support == "binary":
        return Split(values, None, white)
    if binarize != "none":
        return as_split(Images(values.numpy()), support, binarize, "input")
    if bool(((values != 0) & (values != white)).any()):
        _warn(f"x is gray and was {MADE_BINARY}")
    return as_split(Images(values.numpy()), support, "threshold", "input")


def _values(x: Any, facts: DataFacts) -> Tensor:
    """Return examples that are no images, float32 (N, *shape).

    Raises:
        DataError: for values that the model's data cannot have.
    """
    if hasattr(x, "columns") and hasattr(x, "iloc"):
        if not facts.columns:
            x = x.to_numpy()
        else:
            return _observed(torch.from_numpy(vectors_of(x.reset_index(drop=True), facts.columns, "the data frame")))
    if isinstance(x, str):
        raise DataError("x is a text; give rows: an array, a tensor or a data frame")
    if str(getattr(x, "dtype", "")) == "object":
        raise DataError("x has values that are no numbers; give a data frame, or an array of floats")
    values = _shaped(_joined(x, facts), facts.shape).float()
    there = values.detach()[~values.isnan()]
    if bool(there.isinf().any()):
        raise DataError("x has infinite values; correct them, or make them NaN: missing")
    kinds: list[str] = [*kinds_of(facts.columns)] or [facts.support]
    for kind in set(kinds):
        own = values.detach() if len(kinds) == 1 else values.detach()[:, [each == kind for each in kinds]]
        if kind == "counts" and bool(((own < 0) | (own != own.round()) & ~own.isnan()).any()):
            raise DataError("x has values that are no counts; this model takes whole numbers from 0 on there")
        if kind in ("binary", "categorical") and bool(((own != 0) & (own != 1) & ~own.isnan()).any()):
            raise DataError("x has values beside 0 and 1, which is all that this model takes there")
    return _observed(values)


def _observed(values: Tensor) -> Tensor:
    """Return examples, each of which has a value.

    Raises:
        DataError: if there is none, or one is empty.
    """
    if not len(values):
        raise DataError("x has no rows; give at least one")
    empty = values.detach().isnan().flatten(1).all(1)
    if bool(empty.any()):
        raise DataError(f"x has no value in {at(int(empty.int().argmax()))}; remove it")
    return values


def _joined(x: Any, facts: DataFacts) -> Tensor:
    """Return examples as one tensor, of whatever shape they have."""
    if not isinstance(x, (list, tuple)):
        return _tensor(x, facts)
    if not x:
        raise DataError(f"x is an empty {type(x).__name__}; {KINDS}")
    if isinstance(x[0], (bool, int, float, list)):
        return torch.from_numpy(_array(x))
    if len(x) == 2 and getattr(x[0], "ndim", 0) > 1 == getattr(x[1], "ndim", 0):
        raise DataError("x is a pair of examples and labels; pass the examples alone, and the labels as label=")
    single = [_shaped(_tensor(each, facts), facts.shape, f"x[{number}]") for number, each in enumerate(x)]
    types = {each.dtype for each in single}
    if len(types) > 1:
        names = " and ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))
        raise DataError(f"the examples of the list are {names}; make them all uint8, or all floats in [0, 1]")
    return torch.cat(single)


def _array(x: Any) -> np.ndarray:
    """Return nested lists of numbers as an array, of whole numbers from 0 to 255 as bytes."""
    try:
        values = np.array(x)
    except ValueError as error:
        raise DataError(f"x is a list of rows of several lengths ({describe(error)}); {KINDS}") from error
    if values.dtype.kind not in "biuf":
        raise DataError(f"x is a list of {type(values.flat[0]).__name__}; {KINDS}")
    is_bytes = values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255
    return values.astype(np.uint8) if is_bytes else values


def _tensor(x: Any, facts: DataFacts) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, Image.Image):
        levels = torch.from_numpy(_picture(x, facts.shape).copy())
        return levels / 255 if facts.support == "binary" else levels  # where bytes of 0 and 1 may be black and white
    if isinstance(x, np.ndarray) or hasattr(x, "__array__"):
        array = np.ascontiguousarray(x)
        try:
            return torch.from_numpy(array if array.flags.writeable else array.copy())
        except TypeError as error:
            raise DataError(f"x is an array of {array.dtype}; make it uint8, or floats in [0, 1]") from error
    raise DataError(f"x is of type {type(x).__name__}; {KINDS}")


def _picture(image: Image.Image, shape: tuple[int, ...]) -> np.ndarray:
    """Return a PIL image as bytes (C, H, W), prepared as a file of `dataset=folder` is."""
    if len(shape) != 3 or shape[1] != shape[2]:
        raise DataError(f"the model's examples are {_text(shape)}, no squares: give an array in place of a PIL image")
    try:
        prepared = pictures.prepare(image, shape[1], shape[0])
    except Exception as error:  # of whatever kind PIL raises for a broken file
        raise DataError(f"a PIL image cannot be used: {describe(error)}") from error
    if prepared.lost_color:
        _warn("a picture in colour was made gray, as the model's images are")
    return prepared.values


def _shaped(values: Tensor, shape: tuple[int, ...], name: str = "x") -> Tensor:
    """Return values as examples (N, *shape): one without a batch axis, gray images without the axis of the channel,
    and images with the channels last are taken too.

    Raises:
        DataError: if they have another shape.
    """
    size, axes = tuple(values.shape), len(shape)
    forms = {shape: (1, *shape)}
    if axes == 3 and shape[0] == 1:
        forms |= {shape[1:]: (1, *shape)}
    for form in forms:
        if size in (form, (size[0] if size else 0, *form)) and values.numel():
            return values.reshape(-1, *shape)
    last = (*shape[1:], shape[0])
    if axes == 3 and values.numel() and (size == last or size[1:] == last):
        return values.reshape(-1, *last).movedim(-1, 1)
    raise DataError(f"{name} is {_text(size)}: {_fix(size, shape)}")


def _fix(size: tuple[int, ...], shape: tuple[int, ...]) -> str:
    needed = f"this model takes (N, {', '.join(map(str, shape))})"
    if 0 in size or not size:
        return f"{needed}; give at least one example"
    if math.prod(size) == math.prod(shape) or math.prod(size[1:]) == math.prod(shape):
        return f"{needed}; if the values are in that order, x.reshape(-1, {', '.join(map(str, shape))}) makes it so"
    if len(shape) != 3 or len(size) < 2:
        return f"{needed}, or one example without N"
    channels, height, width = shape
    if channels == 1 and size[-3:] in ((3, height, width), (height, width, 3)):
        return f"{needed}; make the images gray first, such as by PIL's image.convert('L')"
    if channels == 3 and size[-2:] == (height, width):
        return f"{needed}; the images need red, green and blue"
    resized = f"resize the images first, such as by PIL's image.resize(({width}, {height}))"
    return f"{needed}, or one image without N; {resized}"


def _with_support(values: Tensor, support: Support, binarize: Binarize) -> tuple[Tensor, Support]:
    """Return values with their support: that of the model where they can be brought to it.

    Raises:
        DataError: for values that are of none, or that may be of two.
    """
    if values.dtype == torch.bool:
        return (values.byte(), "binary") if support == "binary" else (255 * values.byte(), "levels256")
    if values.dtype == torch.uint8:
        return values, _support_of_bytes(values, support, binarize)
    _check_range(values)
    values = values.float()
    if support == "binary" and bool(((values == 0) | (values == 1)).all()):
        return values.byte(), "binary"
    if support == "levels256":
        return (255 * values).round().byte(), "levels256"
    return values, "unit"


def _support_of_bytes(values: Tensor, support: Support, binarize: Binarize) -> Support:
    """Return the support of bytes: that of the model's own data before they were binarized.

    Raises:
        DataError: for zeros and ones where those data were gray, but may have been saved as black and white since.
    """
    high = int(values.max())
    if support == "binary" and binarize == "none":
        return "binary" if high <= 1 else "levels256"
    if high == 1 and support == "binary":
        raise DataError(
            "x is uint8 of 0 and 1, and the model's data were gray, 0 to 255: if 1 is white, make it bool: "
            "x.astype(bool), of a tensor x.bool(); if 255 is, give x / 255"
        )
    if high == 1:
        _warn("x is 0 and 1 and was taken as levels of 0 to 255; if 1 is white, give it as bool")
    return "levels256"


def _check_range(values: Tensor) -> None:
    """Raise DataError unless values are floats in [0, 1]."""
    name = str(values.dtype).removeprefix("torch.")
    if values.is_complex():
        raise DataError(f"x is {name}; make it uint8, or floats in [0, 1]")
    low, high = (float(value) for value in values.detach().aminmax())
    extent = f"x is {name} with values from {low:.6g} to {high:.6g}"
    as_bytes = 'make it bytes: x.astype("uint8"), of a tensor x.to(torch.uint8)'
    if not values.is_floating_point():
        if low >= 0 and high <= 1:
            raise DataError(f"{extent}; if 1 is white, make it bool: x.astype(bool), of a tensor x.bool()")
        fix = as_bytes if low >= 0 and high <= 255 else "scale it to 0 … 255 and " + as_bytes
        raise DataError(f"{extent}; {fix}")
    if low >= 0 and high <= 1:
        return
    if not np.isfinite([low, high]).all():
        raise DataError(f"x is {name} and holds NaN or infinite values; correct or remove those")
    if low >= 0 and 2 < high <= 255:
        white = "255" if high > 127 else "the value of white"
        raise DataError(f"{extent}, and floats belong in [0, 1]; divide it by {white}")
    if -1 <= low < 0 and high <= 1:
        raise DataError(f"{extent}, and floats belong in [0, 1]; perhaps (x + 1) / 2")
    raise DataError(f"{extent}, and floats belong in [0, 1]; rescale or clip it")


def _warn(text: str) -> None:
    """Warn at the line of the caller outside of this package."""
    level, frame = 1, inspect.currentframe()
    while frame is not None and str(frame.f_globals.get("__name__")).startswith("vae_cli."):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def _text(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size)) or "a single number"
