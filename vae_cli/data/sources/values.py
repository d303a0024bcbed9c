"""Arrays that are no images: vectors (N, D), sequences (N, C, L) and others, of real numbers, counts or bits."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from vae_cli.data.base import Support
from vae_cli.data.images import CHUNK
from vae_cli.data.mapped import is_mapped, scratch
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.errors import DataError, at, counted, shortened
from vae_cli.system import memory

Missing = Literal["mask", "error"]
EXACT = 1 << 24  # up to which float32 has every integer
IN_MEMORY = 0.25  # of the free memory, up to which rows are kept there
FINE = 1e-5  # of a column's size, under which its spread is lost in float32


@dataclass(frozen=True)
class Contents:
    """What the values of an array are.

    Args:
        low: the smallest of them.
        high: the largest.
        are_bits: all are 0 or 1.
        are_whole: all are whole numbers.
        missing: how many are NaN.
        empty: rows that are NaN throughout, the first few.
        infinite: the first row with an infinite value.
    """

    low: float = np.inf
    high: float = -np.inf
    are_bits: bool = True
    are_whole: bool = True
    missing: int = 0
    empty: tuple[int, ...] = ()
    infinite: int | None = None


def contents(values: np.ndarray) -> Contents:
    """Return what the values are, read some megabytes at a time."""
    so_far, first = Contents(), 0
    for chunk in chunks(values):
        rows = chunk.reshape(len(chunk), -1)
        missing = np.isnan(rows) if rows.dtype.kind == "f" else np.zeros(rows.shape, bool)
        infinite = np.isinf(rows).any(1) if rows.dtype.kind == "f" else np.zeros(len(rows), bool)
        observed = rows[~missing]
        if observed.size:
            low, high = min(so_far.low, float(observed.min())), max(so_far.high, float(observed.max()))
            are_bits = so_far.are_bits and bool(((observed == 0) | (observed == 1)).all())
            are_whole = so_far.are_whole and (rows.dtype.kind in "bui" or bool((observed == np.rint(observed)).all()))
            so_far = replace(so_far, low=low, high=high, are_bits=are_bits, are_whole=are_whole)
        empty = [first + int(row) for row in np.flatnonzero(missing.all(1))]
        so_far = replace(so_far, missing=so_far.missing + int(missing.sum()), empty=(*so_far.empty, *empty)[:10])
        if so_far.infinite is None and infinite.any():
            so_far = replace(so_far, infinite=first + int(np.argmax(infinite)))
        first += len(chunk)
    return so_far


def chunks(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the rows some megabytes at a time, so that a mapped file is never in memory as a whole."""
    rows = max(1, CHUNK // max(1, values[0].nbytes))
    for start in range(0, len(values), rows):
        yield values[start : start + rows]


def gathered(parts: Iterable[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    """Return rows that come some at a time as one array, float32: in memory, or mapped where they would take more than
    a quarter of the free memory."""
    if 4 * math.prod(shape) > IN_MEMORY * memory.available():
        return scratch(parts, np.float32, shape)
    every, start = np.empty(shape, np.float32), 0
    for part in parts:
        every[start : start + len(part)] = part
        start += len(part)
    return every


def check_shapes(arrays: Sequence[NamedArray], example: str) -> None:
    """Raise DataError if arrays hold no numbers, are empty, or have examples of unlike shapes."""
    train = arrays[0]
    for array in arrays:
        shape = "x".join(map(str, array.values.shape))
        if array.values.dtype.kind not in "buif":
            raise DataError(f"{array.name} has dtype {array.values.dtype}; save numbers: floats, integers or bool")
        if array.values.size == 0:
            raise DataError(f"{array.name} is empty ({shape}); save it with {example} in it")
        if array.values.shape[1:] != train.values.shape[1:]:
            one, other = ("x".join(map(str, each.values.shape[1:])) for each in (array, train))
            raise DataError(f"{array.name} has {example} of {one}, but train of {other}; make them alike")


def support_of(
    inside: Sequence[Contents], arrays: Sequence[NamedArray], wanted: Support | None, is_for_model: bool = False
) -> Support:
    """Return the support of all splits: as wanted, by a trained model perhaps, or by their values.

    All 0 and 1 are binary, whole numbers from 0 on in an array of integers are counts, all others are real.

    Raises:
        DataError: if the values are not of the wanted support.
    """
    low, high = min(each.low for each in inside), max(each.high for each in inside)
    are_bits, are_whole = all(each.are_bits for each in inside), all(each.are_whole for each in inside)
    are_integers = all(array.values.dtype.kind in "bui" for array in arrays)
    if wanted is None:
        return "binary" if are_bits else "counts" if are_integers and low >= 0 else "real"
    fits = {"binary": are_bits, "counts": are_whole and low >= 0, "unit": low >= 0 and high <= 1, "real": True}
    if not fits.get(wanted, False):
        kind = "whole numbers" if are_whole else "numbers"
        fix = "counts" if are_whole and low >= 0 else "real"
        if wanted not in fits:
            raise DataError(f"dataset.support={wanted} is of images; choose real, counts, unit or binary")
        if is_for_model:
            extent = f"{kind} from {low:.9g} to {high:.9g}"
            raise DataError(f"{arrays[0].name} has {extent}, and the model takes {wanted}; use a model of such data")
        what = {"binary": "0 and 1", "counts": "whole numbers from 0 on", "unit": "floats in [0, 1]"}[wanted]
        raise DataError(
            f"dataset.support={wanted} is for {what}, and these are {kind} from {low:.9g} to {high:.9g}; "
            f"choose dataset.support={fix}"
        )
    return wanted


def check_values(array: NamedArray, inside: Contents, support: Support, missing: Missing, example: str) -> None:
    """Raise DataError for values that cannot be modelled, with the row and the fix."""
    name = array.name
    if inside.infinite is not None:
        raise DataError(f"{name} has an infinite value in {at(inside.infinite)}; correct it, or make it NaN: missing")
    if inside.missing and missing == "error":
        raise DataError(
            f"{name} has {counted(inside.missing, 'missing value')} (NaN), and dataset.missing=error; fill them, or "
            "set dataset.missing=mask"
        )
    if inside.empty:
        rows = shortened([str(row) for row in inside.empty])
        raise DataError(f"{name} has {example} without any value: row {rows} (counted from 0); remove them")
    if support == "counts" and inside.high > EXACT:
        raise DataError(f"{name} has counts up to {inside.high:.9g}, above {EXACT:,}; set dataset.support=real")


def check_columns(name: str, parts: Iterable[np.ndarray], names: Sequence[str] = ()) -> None:
    """Raise DataError for real values that are the same in all examples, or hardly differ in float32.

    Args:
        name: of the array.
        parts: its examples, some at a time.
        names: of the values of a vector.
    """
    low: np.ndarray | float = np.inf
    high: np.ndarray | float = -np.inf
    for rows in parts:
        low, high = np.fmin(low, np.fmin.reduce(rows, 0)), np.fmax(high, np.fmax.reduce(rows, 0))
    low, high = np.asarray(low), np.asarray(high)

    def where(places: np.ndarray) -> str:
        every = [tuple(place) for place in places]
        return shortened([names[place[0]] if names else "[" + ", ".join(map(str, place)) + "]" for place in every])

    if len(same := np.argwhere(~(high > low))):
        raise DataError(f"{name}: value {where(same)} is the same in all examples; leave it out, it tells nothing")
    if len(close := np.argwhere(high - low < FINE * np.maximum(np.abs(low), np.abs(high)))):
        one, other = low[tuple(close[0])], high[tuple(close[0])]
        raise DataError(
            f"{name}: value {where(close)} lies between {one:.12g} and {other:.12g}, which float32 hardly tells apart; "
            "subtract its mean first"
        )


def stored(values: np.ndarray, support: Support, has_missing: bool) -> np.ndarray:
    """Return the values in the type in which they are kept: uint8 bits, int32 counts, float32 otherwise or where some
    are missing."""
    dtype: np.dtype = np.dtype(np.float32)
    if not has_missing and support in ("binary", "counts"):
        dtype = np.dtype(np.uint8 if support == "binary" else np.int32)
    if values.dtype == dtype:
        return values
    if is_mapped(values):
        return scratch((chunk.astype(dtype) for chunk in chunks(values)), dtype, values.shape)
    return values.astype(dtype)
