"""The columns of a table, and how a row becomes a vector and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Shaped

Kind = Literal["real", "counts", "binary", "categorical"]
CategoryType = Literal["text", "number", "bool"]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        name: as in the file.
        kind: of its values.
        categories: of a categorical or binary column, the texts of its values in the order of their numbers.
        is_whole: a real column has whole numbers only.
        category_type: what the categories are in the file.
    """

    name: str
    kind: Kind
    categories: tuple[str, ...] = ()
    is_whole: bool = False
    category_type: CategoryType = "text"

    @property
    def size(self) -> int:
        """The numbers that it takes in a vector: one, or of a categorical column one for each category."""
        return len(self.categories) if self.kind == "categorical" else 1


def as_columns(values: Sequence[Column | Mapping[str, Any]]) -> tuple[Column, ...]:
    """Return columns as they come out of a file of JSON."""
    return tuple(
        each if isinstance(each, Column) else Column(**{**each, "categories": tuple(each["categories"])})
        for each in values
    )


def width(columns: Sequence[Column]) -> int:
    """Return the numbers in the vector of a row."""
    return sum(column.size for column in columns)


def places(columns: Sequence[Column]) -> list[slice]:
    """Return where each column stands in the vector of a row."""
    ends = np.cumsum([0, *(column.size for column in columns)]).tolist()
    return [slice(start, end) for start, end in zip(ends, ends[1:])]


def kinds_of(columns: Sequence[Column]) -> list[Kind]:
    """Return the kind of each number in the vector of a row."""
    return [column.kind for column in columns for _ in range(column.size)]


def support_of(columns: Sequence[Column]) -> str:
    """Return the support of the vectors: that of all columns, or `mixed`."""
    kinds = {column.kind for column in columns}
    (kind, *others) = kinds
    return "mixed" if others or kind == "categorical" else kind


def as_vectors(values: Mapping[str, Shaped[np.ndarray, "n"]], columns: Sequence[Column]) -> Float[np.ndarray, "n d"]:
    """Return rows as vectors, float32 with NaN where a value is missing.

    Args:
        values: of each column: numbers with NaN; of a categorical one the numbers of its categories, −1 for none.
        columns: in the order of the vector.
    """
    rows = len(values[columns[0].name])
    vectors = np.empty((rows, width(columns)), np.float32)
    for column, place in zip(columns, places(columns)):
        own = values[column.name]
        if column.kind == "categorical":
            block = np.eye(column.size, dtype=np.float32)[own.clip(0)]
            block[own < 0] = np.nan
            vectors[:, place] = block
        else:
            vectors[:, place.start] = own
    return vectors


def as_values(vectors: Float[np.ndarray, "n d"], columns: Sequence[Column]) -> dict[str, Shaped[np.ndarray, "n"]]:
    """Return the values of each column, as they are written in a table: whole numbers where it has them, the most
    probable category by its text; None or NaN where a value is missing."""
    values: dict[str, np.ndarray] = {}
    for column, place in zip(columns, places(columns)):
        block = vectors[:, place]
        missing = np.isnan(block).any(1)
        if column.categories:
            number = block.argmax(1) if column.kind == "categorical" else (block[:, 0] >= 0.5).astype(int)
            values[column.name] = _categories(column, np.where(missing, 0, number), missing)
        elif column.kind == "real" and not column.is_whole:
            values[column.name] = block[:, 0]
        else:
            whole = np.rint(block[:, 0]).astype(np.float64)
            values[column.name] = whole if missing.any() else whole.astype(np.int64)
    return values


def _categories(column: Column, number: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """Return the categories of these numbers as they are in the file; None where one is missing, of numbers NaN."""
    if column.category_type == "number":
        floats = np.array([float(text) for text in column.categories])[number]
        floats[missing] = np.nan
        return floats.astype(np.int64) if (floats == np.rint(floats)).all() else floats
    every = [text == "True" for text in column.categories] if column.category_type == "bool" else column.categories
    values = np.array(every, object)[number]
    values[missing] = None
    return values.astype(bool) if column.category_type == "bool" and not missing.any() else values


def names_of(columns: Sequence[Column]) -> list[str]:
    """Return a name for each number in the vector of a row: that of its column, `column=category` of a category."""
    names: list[str] = []
    for column in columns:
        is_split = column.kind == "categorical"
        names += [f"{column.name}={text}" for text in column.categories] if is_split else [column.name]
    return names
