"""The columns of a table: what they are taken for, and their cells as numbers."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vae_cli.data.columns import CategoryType, Column, as_vectors
from vae_cli.data.sources.values import EXACT, check_columns
from vae_cli.errors import DataError, at, printable, shortened

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 100
FEWEST_NAMES = 20  # texts, of which nearly all may differ and be categories still
NEARLY_ALL = 0.9
DECIMAL_COMMA = r"-?\d+,\d+"
MOSTLY = 0.5  # of the texts that are numbers, from which a column is one of numbers with mistakes
BOOLS = {"0": "False", "1": "True", "false": "False", "true": "True", "FALSE": "False", "TRUE": "True"}


def column_of(
    cells: pd.Series[Any], name: str, path: str, categorical: Collection[str] = (), counts: Collection[str] = ()
) -> Column:
    """Return what a column of several values holds: categories, of two values a binary one, or numbers.

    Args:
        cells: of the column.
        name: of the column.
        path: of the file, for messages.
        categorical: columns whose numbers are names.
        counts: columns that count something.

    Raises:
        DataError: if it can be no column of a model.
    """
    import pandas as pd

    where, present = f"{path}: column {printable(name)}", cells.dropna()
    if pd.api.types.is_datetime64_any_dtype(cells):
        raise DataError(f"{where} holds dates; make them numbers, or leave them out: {drop(name)}")
    is_number = pd.api.types.is_numeric_dtype(cells)
    if name in counts and not is_number:
        raise DataError(f"{where} holds texts, not counts; take it out of dataset.counts=")
    if is_number:
        numbers = present.to_numpy(np.float64)
        _check_numbers(numbers, present, Column(name, "real"), path)
        is_whole = bool((numbers == np.rint(numbers)).all())
        if name in counts:
            if not is_whole or numbers.min() < 0 or numbers.max() > EXACT:
                span = f"numbers from {numbers.min():.9g} to {numbers.max():.9g}"
                raise DataError(f"{where} holds {span}, not counts; take it out of dataset.counts=")
            return Column(name, "counts", (), True)
        if name not in categorical and present.nunique() > 2:
            check_columns(path, [numbers[:, None]], [name])
            return Column(name, "real", (), is_whole)
    _check_categories(present, where, name, is_named=name in categorical)
    is_bool = pd.api.types.infer_dtype(present) == "boolean"  # also of objects beside missing ones
    kind: CategoryType = "bool" if is_bool else "number" if is_number else "text"
    texts = {text_of(value) for value in present}
    categories = tuple(sorted(texts, key=float) if kind == "number" else sorted(texts))
    return Column(name, "binary" if len(categories) == 2 else "categorical", categories, category_type=kind)


def _check_categories(present: pd.Series[Any], where: str, name: str, is_named: bool) -> None:
    """Raise DataError for texts that are numbers with mistakes, or too many different values."""
    import pandas as pd

    kinds, texts = present.nunique(), present.map(str)
    if not is_named and kinds > 2:
        if texts.str.fullmatch(DECIMAL_COMMA).mean() >= MOSTLY:
            raise DataError(f'{where} has numbers with a comma, "{printable(texts.iloc[0])}"; write them with a point')
        numbers = pd.to_numeric(texts, errors="coerce")
        if numbers.notna().mean() >= MOSTLY and not numbers.notna().all():
            row = present.index[numbers.isna()][0]
            text = printable(texts.loc[row])
            raise DataError(f'{where}: "{text}" in {at(row)} is no number; leave the cell empty if it is missing')
    is_of_names = not is_named and len(present) >= FEWEST_NAMES and kinds >= NEARLY_ALL * len(present)
    if kinds > MOST_CATEGORIES or is_of_names:
        fix = "take it out of dataset.categorical=" if is_named else f"leave it out: {drop(name)}"
        raise DataError(
            f"{where} has {kinds:,} different values in {len(present):,} rows, too many for categories; {fix}"
        )


def drop(name: str) -> str:
    """Return the setting that leaves a column out, as a shell takes it."""
    if name.replace("_", "").isalnum() and name.isascii():
        return f"dataset.drop=[{name}]"
    return f"""'dataset.drop=["{name}"]'"""


def vectors_of(frame: pd.DataFrame, columns: Sequence[Column], name: str) -> Float[np.ndarray, "n d"]:
    """Return the rows of a data frame as vectors of a trained model.

    Args:
        frame: with the columns, in any order, and the numbers of its rows as its index.
        columns: of the model.
        name: of the frame, for messages.

    Raises:
        DataError: if a column is missing, or has other values than the model knows.
    """
    missing = [column.name for column in columns if column.name not in frame.columns]
    if missing:
        raise DataError(f"{name} has no column {shortened(missing)}, which the model was trained on; add it")
    names = [str(each) for each in frame.columns]
    if twice := [column.name for column in columns if names.count(column.name) > 1]:
        raise DataError(f"{name} has two columns named {shortened(twice)}; rename one")
    return as_vectors({column.name: _values_of(frame[column.name], column, name) for column in columns}, columns)


def _values_of(cells: pd.Series[Any], column: Column, path: str) -> np.ndarray:
    """Return the values of a column as numbers, NaN or −1 where they are missing.

    Raises:
        DataError: if it has other values than the model knows.
    """
    import pandas as pd

    name = printable(column.name)
    if not column.categories:
        try:
            numbers = cells.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            coerced = pd.to_numeric(cells, errors="coerce")
            row = cells.index[coerced.isna() & cells.notna()][0]
            cell = printable(str(cells.loc[row]))
            is_comma = re.fullmatch(DECIMAL_COMMA, cell) is not None
            fix = "write it with a point" if is_comma else "leave the cell empty if it is missing"
            what = f'column {name} has "{cell}" in {at(row)}, and the model takes numbers; {fix}'
            raise DataError(f"{path}: {what}") from error
        _check_numbers(numbers, cells, column, path)
        return numbers
    texts = [None if missing else text_of(cell) for cell, missing in zip(cells, cells.isna())]
    if column.category_type == "bool":
        texts = [BOOLS.get(str(text), text) for text in texts]
    place: dict[str | None, float] = {text: n for n, text in enumerate(column.categories)}
    for row, text in zip(cells.index, texts):
        if text is not None and text not in place:
            raise DataError(
                f"{path}: column {name} has {printable(text)} in {at(row)}, and the model knows "
                f"{shortened(column.categories)}; correct it, or leave the cell empty"
            )
    none = -1 if column.kind == "categorical" else np.nan
    numbers = np.array([none if text is None else place[text] for text in texts])
    return numbers.astype(np.int64) if column.kind == "categorical" else numbers


def _check_numbers(numbers: np.ndarray, cells: pd.Series[Any], column: Column, path: str) -> None:
    """Raise DataError for values that are infinite, or none of the column's kind."""
    where = f"{path}: column {printable(column.name)}"
    if np.isinf(numbers).any():
        row = cells.index[np.isinf(numbers)][0]
        raise DataError(f"{where} has an infinite value in {at(row)}; correct it, or leave the cell empty")
    if column.kind == "counts":
        wrong = (numbers < 0) | (numbers != np.rint(numbers)) & ~np.isnan(numbers) | (numbers > EXACT)
        if wrong.any():
            row = cells.index[wrong][0]
            raise DataError(f"{where} has {numbers[wrong][0]:.9g} in {at(row)}, which is no count")


def text_of(value: Any) -> str:
    """Return the text of a cell; of a whole number without a point."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
