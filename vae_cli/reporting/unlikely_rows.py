"""The rows of a table that a model finds least likely, and what is unusual about them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from vae_cli.data.columns import Column, as_values, places
from vae_cli.runs.reader import read

FILE = "unlikely_rows.csv"
ROWS, VALUES = 8, 3  # of the table, and of each row
HEAD = ("row", "elbo", "column", "value", "reconstruction", "error")


def table(
    x: Float[np.ndarray, "n d"],
    shown: Float[np.ndarray, "n d"],
    elbo: Float[np.ndarray, "n"],
    numbers: Int[np.ndarray, "n"],
    columns: Sequence[Column],
) -> str:
    """Return the rows of the lowest ELBO as a CSV, of each the values that its reconstruction misses by most.

    Args:
        x: rows, NaN where a value is missing.
        shown: their reconstructions.
        elbo: of each row, in nats.
        numbers: of the rows in their file, from 0 on.
        columns: whose vectors they are.
    """
    errors = errors_of(x, shown, columns)
    values, others = as_values(x, columns), as_values(shown, columns)
    lines = []
    for n in np.argsort(elbo)[:ROWS]:
        for c in np.argsort(-np.nan_to_num(errors[n], nan=-1))[:VALUES]:
            if np.isfinite(errors[n, c]):
                cells = (_text(each[columns[c].name][n]) for each in (values, others))
                lines.append((int(numbers[n]), f"{elbo[n]:.6g}", columns[c].name, *cells, f"{errors[n, c]:.3g}"))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([HEAD, *lines])
    return text.getvalue()


def errors_of(
    x: Float[np.ndarray, "n d"], shown: Float[np.ndarray, "n d"], columns: Sequence[Column]
) -> Float[np.ndarray, "n c"]:
    """Return how far reconstructions are off in each column, in units of the column's root mean square error; NaN where
    a value is missing."""
    squares = np.square(x - shown, dtype=np.float64)
    by_column = np.column_stack([squares[:, place].mean(1) for place in places(columns)])
    return np.sqrt(by_column / np.maximum(np.nanmean(by_column, 0), 1e-12))


def stored(directory: Path) -> list[dict[str, str]]:
    """Return the lines of a run's table by their columns; none where there is no such file, or a broken one."""
    lines = list(csv.DictReader(io.StringIO(read(directory / FILE))))
    return [line for line in lines if None not in line and None not in line.values() and set(line) == set(HEAD)]


def _text(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)
