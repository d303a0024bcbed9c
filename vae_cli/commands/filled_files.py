"""The file of a table again, with a model's values in its cells: in the empty ones, or in all of its columns'."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from vae_cli.commands.row_files import plain
from vae_cli.data.columns import Column, as_values, places
from vae_cli.data.sources.table_file import opened, separator_of
from vae_cli.system.atomic import atomic_write

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

Cells = dict[str, tuple[np.ndarray, np.ndarray]]  # of each column the values, and where they go


def cells(pairs: Iterable[tuple[Tensor, Tensor]], columns: Sequence[Column], is_partial: bool) -> Iterator[Cells]:
    """Yield chunk by chunk what a model puts into the cells of its columns.

    Args:
        pairs: rows (N, D), NaN where a value is missing, and their reconstructions.
        columns: of the model.
        is_partial: the values go into empty cells alone.
    """
    for x, shown in pairs:
        values, missing = as_values(shown.cpu().numpy(), columns), x.isnan().cpu().numpy()
        yield {
            column.name: (plain(values[column.name]), np.logical_or(missing[:, place].any(1), not is_partial))
            for column, place in zip(columns, places(columns))
        }


def write(source: Path, output: Path, kind: str, chunks: Iterable[Cells]) -> None:
    """Write the first rows of a table's file with other values in some cells; all others stay as they are.

    Args:
        source: the file.
        output: of the kind.
        kind: csv or parquet.
        chunks: of the rows, in their order.
    """
    suffix = source.suffix.lower()
    if kind == "csv" and suffix in (".csv", ".tsv"):
        _write_csv(source, output, chunks)
    elif kind == "parquet" and suffix in (".parquet", ".feather"):
        _write_parquet(source, output, chunks)
    else:
        frame = _frame(source, _joined(chunks))
        with atomic_write(output) as temporary:
            if kind == "csv":
                frame.to_csv(temporary, index=False)
            else:
                frame.to_parquet(temporary, index=False)


def _joined(chunks: Iterable[Cells]) -> Cells:
    every = list(chunks)
    return {
        name: (np.concatenate([chunk[name][0] for chunk in every]), np.concatenate([chunk[name][1] for chunk in every]))
        for name in every[0]
    }


def _write_csv(source: Path, output: Path, chunks: Iterable[Cells]) -> None:
    separator = separator_of(source)
    with source.open(encoding="utf-8-sig", newline="") as file, atomic_write(output) as temporary:
        ending = "\r\n" if file.readline().endswith("\r\n") else "\n"
        file.seek(0)
        lines = (line for line in csv.reader(file, delimiter=separator) if line)
        with temporary.open("w", encoding="utf-8", newline="") as written:
            writer = csv.writer(written, delimiter=separator, lineterminator=ending)
            head = next(lines)
            writer.writerow(head)
            for chunk in chunks:
                by_place = [(head.index(name), values.tolist(), goes) for name, (values, goes) in chunk.items()]
                rows = len(by_place[0][1])
                for number, line in enumerate(islice(lines, rows)):
                    line += [""] * (len(head) - len(line))
                    for place, values, goes in by_place:
                        if goes[number]:
                            line[place] = str(values[number])
                    writer.writerow(line)


def _write_parquet(source: Path, output: Path, chunks: Iterable[Cells]) -> None:
    import pyarrow.parquet as pq
    from pyarrow import feather

    read = feather.read_table if source.suffix.lower() == ".feather" else pq.read_table
    new = _joined(chunks)
    table: pa.Table = read(source).slice(0, len(next(iter(new.values()))[0]))
    for name, (values, goes) in new.items():
        place = table.schema.get_field_index(name)
        field = table.schema.field(place)
        table = table.set_column(place, field, _replaced(table.column(place), field.type, values, goes))
    with atomic_write(output) as temporary:
        pq.write_table(table, temporary)


def _replaced(old: pa.ChunkedArray, kind: pa.DataType, values: np.ndarray, goes: np.ndarray) -> pa.ChunkedArray:
    """Return a column with some other values, of its own type."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_dictionary(kind):
        own = _replaced(old.cast(kind.value_type), kind.value_type, values, goes)
        return own.dictionary_encode().cast(kind)
    if pa.types.is_decimal(kind):
        new = pa.array([f"{value:.{kind.scale}f}" for value in values.tolist()])
    else:
        new = pa.array(values, from_pandas=True)
    return pc.if_else(pa.array(goes), new.cast(kind, safe=False), old)


def _frame(source: Path, new: Cells) -> pd.DataFrame:
    """Return the rows as a data frame, where the file is written as one of another kind."""
    import pandas as pd

    table, rows = opened(source), len(next(iter(new.values()))[0])
    frame = pd.DataFrame({name: table[name][:rows] for name in table.columns})
    for name, (values, goes) in new.items():
        changed: Any = frame[name].astype(object)
        changed[goes] = pd.Series(values, dtype=object)[goes]
        frame[name] = changed.infer_objects()
    return frame
