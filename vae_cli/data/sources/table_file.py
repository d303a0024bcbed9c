"""The files of tables: CSV, TSV and Feather in memory, Parquet column by column and some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from vae_cli.errors import DataError, describe, shortened

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

KINDS = (".csv", ".tsv", ".parquet", ".feather")
SEPARATORS = {".csv": ",;\t", ".tsv": "\t"}  # of which the first line has one
ROWS = 1 << 16  # of a Parquet file that are read together
OWN_INDEX = "__index_level_0__"  # the name under which pandas writes an index without one


@runtime_checkable
class TableFile(Protocol):
    """A table by its columns; a data frame is one."""

    @property
    def columns(self) -> Any: ...

    def __len__(self) -> int: ...

    def __getitem__(self, name: str, /) -> pd.Series[Any]: ...


class Parquet:
    """A Parquet file of which no more is in memory than is asked for.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self.columns = [name for name in self._file.schema_arrow.names if name != OWN_INDEX]

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def __getitem__(self, name: str, /) -> pd.Series[Any]:
        cells = _plain(self._file.read(columns=[name], use_pandas_metadata=False))
        return cells.column(0).to_pandas().reset_index(drop=True)

    def frames(self, names: Sequence[str]) -> Iterator[pd.DataFrame]:
        """Yield some columns, some rows at a time."""
        import pyarrow as pa

        start = 0
        for batch in self._file.iter_batches(ROWS, columns=list(names), use_pandas_metadata=False):
            frame = _plain(pa.Table.from_batches([batch])).to_pandas(ignore_metadata=True)
            frame.index += start
            start += len(frame)
            yield frame


def _plain(table: pa.Table) -> pa.Table:
    """Return the columns with decimals as floats and dates as timestamps, which are no objects of Python then."""
    import pyarrow as pa

    for number, field in enumerate(table.schema):
        kind = pa.float64() if pa.types.is_decimal(field.type) else field.type
        kind = pa.timestamp("ms") if pa.types.is_date(field.type) else kind
        if kind != field.type:
            table = table.set_column(number, field.name, table.column(number).cast(kind))
    return table


def frames(table: TableFile, names: Sequence[str], path: str) -> Iterator[pd.DataFrame]:
    """Yield the rows of a table in order, with some of its columns in memory.

    Raises:
        DataError: if it has not all of them.
    """
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise DataError(f"{path} has no column {shortened(missing)}, which the model was trained on; add it")
    if isinstance(table, Parquet):
        yield from table.frames(names)
    else:
        yield table


def opened(path: Path) -> TableFile:
    """Return the table in a file.

    Raises:
        DataError: if it is missing, of another kind or broken, has two columns of one name, or pandas is not there.
    """
    try:
        import pandas  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise DataError('dataset=table needs pandas and pyarrow: pip install "vae-cli[table]"') from error
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() in KINDS]
    if not path.exists():
        raise DataError(f"{path} does not exist; set dataset.path to a {', '.join(KINDS[:-1])} or {KINDS[-1]} file")
    if not suffixes:
        raise DataError(f"{path} is no {', '.join(KINDS[:-1])} or {KINDS[-1]} file; save the table as one")
    try:
        table = _read(path, suffixes[-1])
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({describe(error)}); save it in that encoding") from error
    except Exception as error:  # pandas and its engines raise many kinds
        raise DataError(f"{path} cannot be read as a table ({describe(error)}); correct or save it again") from error
    if not len(table) or not len(table.columns):
        raise DataError(f"{path} has no rows; name a table with some")
    return table


def separator_of(path: Path) -> str:
    """Return what separates the columns of a CSV or TSV file: of a compressed one what is usual."""
    suffix = next(suffix.lower() for suffix in reversed(path.suffixes) if suffix.lower() in SEPARATORS)
    if path.suffix.lower() != suffix:
        return SEPARATORS[suffix][0]
    with path.open(encoding="utf-8-sig", newline="") as file:
        line = file.readline()
    return max(SEPARATORS[suffix], key=line.count)


def _read(path: Path, suffix: str) -> TableFile:
    import pandas as pd

    if suffix == ".parquet":
        return Parquet(path)
    if suffix == ".feather":
        frame = pd.read_feather(path)
    else:
        separator = separator_of(path)
        head = pd.read_csv(path, sep=separator, header=None, nrows=1, dtype=str).iloc[0]
        twice = [str(name) for name in head[head.duplicated()].dropna().unique()]
        if twice:
            raise DataError(f"{path} has two columns named {shortened(twice)}; rename one")
        frame = pd.read_csv(path, sep=separator, float_precision="round_trip")
    frame.columns = [str(name) for name in frame.columns]
    unnamed = [name for name in frame.columns[:1] if name.startswith("Unnamed:")]
    return frame.drop(columns=unnamed).reset_index(drop=True)  # the index that pandas writes by itself
