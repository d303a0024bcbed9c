"""Rows on disk: a CSV or Parquet file, written whole or not at all."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

import numpy as np

from vae_cli.data.base import DataFacts
from vae_cli.data.columns import Column, as_values
from vae_cli.errors import ConfigError, UserError
from vae_cli.system.atomic import atomic_write

KINDS = {".csv": "csv", ".parquet": "parquet"}
MOST_COLUMNS = 16_384  # of a CSV, which spreadsheets open

Values = Mapping[str, np.ndarray]


def columns_of(facts: DataFacts) -> tuple[Column, ...]:
    """Return a table's columns; of other vectors one for each value, by its number.

    Raises:
        ConfigError: for examples that are no vectors.
    """
    if facts.columns:
        return facts.columns
    if len(facts.shape) != 1:
        shape = "x".join(map(str, facts.shape))
        raise ConfigError(f"a table has rows of vectors, and these examples are {shape}; use format=npz")
    if facts.shape[0] > MOST_COLUMNS:
        raise ConfigError(f"vectors of {facts.shape[0]:,} values are too wide for a table; use format=npz")
    is_whole = facts.support in ("counts", "binary")
    kind = "counts" if is_whole else "real"
    return tuple(Column(str(number), kind, (), is_whole) for number in range(facts.shape[0]))  # type: ignore[arg-type]


def rows_of(vectors: Iterable[np.ndarray], columns: Sequence[Column]) -> Iterable[Values]:
    """Yield the values of each column, chunk by chunk, of vectors (N, D)."""
    return (as_values(chunk, columns) for chunk in vectors)


def write(output: Path, kind: str, chunks: Iterable[Values]) -> None:
    """Write the columns of chunks of rows, in a file of a kind of `KINDS`.

    Raises:
        UserError: if pandas or pyarrow is needed and missing.
    """
    (csv_file if kind == "csv" else parquet_file)(output, chunks)


def csv_file(output: Path, chunks: Iterable[Values]) -> None:
    """Write a CSV file; a missing value is an empty cell."""
    with atomic_write(output) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        head: list[str] = []
        for chunk in chunks:
            if not head:
                head = list(chunk)
                writer.writerow(head)
            writer.writerows(zip(*(_cells(chunk[name]) for name in head)))


def _cells(values: np.ndarray) -> list[object]:
    """Return the cells of a column, empty where a value is missing."""
    return ["" if value is None or value != value else value for value in plain(values).tolist()]


def plain(values: np.ndarray) -> np.ndarray:
    """Return float32 numbers as those that are written with the fewest digits, and others as they are."""
    return values.astype(str).astype(np.float64) if values.dtype == np.float32 else values


def parquet_file(output: Path, chunks: Iterable[Values]) -> None:
    """Write a Parquet file; a missing value is null."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise UserError('format=parquet needs pyarrow: pip install "vae-cli[table]"') from error

    def table(chunk: Values) -> pa.Table:
        return pa.table({name: pa.array(values, from_pandas=True) for name, values in chunk.items()})

    iterator = iter(chunks)
    first = table(next(iterator))
    with atomic_write(output) as temporary, pq.ParquetWriter(temporary, first.schema) as writer:
        for part in chain([first], map(table, iterator)):
            writer.write_table(part.cast(first.schema))
