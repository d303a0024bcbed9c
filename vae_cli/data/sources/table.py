"""The user's own tables: CSV, Parquet and Feather files, by pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float

from vae_cli.constraints import Described, FilePath, Index, Length, Name
from vae_cli.data.base import Dataset, Source, Standardize, Support
from vae_cli.data.columns import Column, as_vectors, support_of
from vae_cli.data.images import Images
from vae_cli.data.sources import values
from vae_cli.data.sources.values import EXACT, Missing
from vae_cli.errors import ConfigError, DataError, counted, describe, printable, shortened
from vae_cli.system.paths import expand

if TYPE_CHECKING:
    import pandas as pd

MOST_CATEGORIES = 100
MOSTLY = 0.5  # of the texts that are numbers, from which a column is one of numbers with mistakes
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
READERS = {
    ".csv": ("read_csv", {}),
    ".tsv": ("read_csv", {"sep": "\t"}),
    ".parquet": ("read_parquet", {}),
    ".feather": ("read_feather", {}),
}
Names = Annotated[Sequence[Name], Length(1), Described("a list of columns' names, such as [age,income]")] | None


class Table(Dataset):
    """The rows of a CSV, TSV, Parquet or Feather file, as vectors.

    A column of numbers is real. One of two values is binary; one of texts is categorical, and takes a number for each
    of its values in the vector, of which one is 1. An empty cell is a missing value. A column whose values are all the
    same is left out.

    Args:
        path: the file.
        columns: those that are used; None is all.
        drop: those that are not.
        label: the column of the labels, which is no part of a row then.
        categorical: columns of numbers that are names.
        counts: columns of numbers that count something.
        split: a column whose values are train, valid and test.
        validation: see `Dataset`.
        standardize: as of `Arrays`.
        missing: as of `Arrays`.

    Raises:
        ConfigError: if there is no `path`.
    """

    name = "table"
    has_keys = True

    def __init__(
        self,
        path: FilePath | None = None,
        columns: Names = None,
        drop: Names = None,
        label: Name | None = None,
        categorical: Names = None,
        counts: Names = None,
        split: Name | None = None,
        validation: Index | None = None,
        standardize: Standardize = "auto",
        missing: Missing = "mask",
    ) -> None:
        super().__init__("none", validation)
        if not path:
            raise ConfigError("dataset.path is not set: name a .csv, .tsv, .parquet or .feather file")
        self.path, self.columns, self.drop = expand(str(path)), columns, drop
        self.label, self.categorical, self.counts, self.split = label, categorical or (), counts or (), split
        self.standardize, self.missing = standardize, missing

    def load(self, columns: Sequence[Column] = (), class_names: Sequence[str] = ()) -> Source:
        """Read the rows.

        Args:
            columns: of a trained model, which the file must have, in any order.
            class_names: its labels; of a file without that column no row has one.

        Raises:
            DataError: if the file is missing or broken, or a column cannot be modelled; with the fix.
        """
        frame = read(self.path)
        notes: list[str] = []
        labels, classes = labels_of(frame, self.label, str(self.path), tuple(class_names) if columns else None)
        parts = parts_of(frame, self.split, str(self.path))
        if columns:
            own = {column.name: _values_of(frame, column, str(self.path)) for column in columns}
        else:
            columns, own, notes = self._columns(self._chosen(frame))
        vectors = as_vectors(own, columns)
        self._check_missing(vectors)
        support: Support = support_of(columns)  # type: ignore[assignment]
        if not parts:
            parts = {"train": np.arange(len(frame))}
        if real := [column.name for column in columns if column.kind == "real"]:
            train = np.column_stack([own[name] for name in real])[parts["train"]]
            values.check_columns(str(self.path), train, real)
        splits = {
            split: Images(vectors[rows], None if labels is None else labels[rows]) for split, rows in parts.items()
        }
        if count := int(np.isnan(vectors).sum()):
            notes.append(f"{count:,} of {vectors.size:,} values are missing ({count / vectors.size:.1%})")
        has_missing = bool(np.isnan(vectors[parts["train"]]).any())
        train, validation, test = (splits.get(split) for split in ("train", "validation", "test"))
        assert train is not None
        return Source(train, validation, test, support, tuple(notes), classes, has_missing, tuple(columns))

    def _chosen(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return the columns that are used."""
        for key, names in (("columns", self.columns), ("drop", self.drop), ("categorical", self.categorical)):
            _check_names(frame, key, names or (), str(self.path))
        _check_names(frame, "counts", self.counts or (), str(self.path))
        chosen = list(self.columns) if self.columns else list(frame.columns)
        left_out = {*(self.drop or ()), *([self.label] if self.label else []), *([self.split] if self.split else [])}
        chosen = [name for name in chosen if name not in left_out]
        if not chosen:
            raise DataError(f"{self.path}: no column is left; choose others with dataset.columns= or dataset.drop=")
        return frame[chosen]

    def _columns(self, frame: pd.DataFrame) -> tuple[list[Column], dict[str, np.ndarray], list[str]]:
        """Return the columns, their values as numbers, and notes."""
        columns: list[Column] = []
        own: dict[str, np.ndarray] = {}
        same: list[str] = []
        for name in frame.columns:
            if frame[name].nunique(dropna=True) <= 1:
                same.append(name)
                continue
            column = self._column(frame[name], name)
            columns.append(column)
            own[name] = _values_of(frame, column, str(self.path))
        notes = [f"{counted(len(same), 'column')} left out, of one value only: {shortened(same)}"] if same else []
        whole = [c.name for c in columns if c.kind == "real" and c.is_whole and np.nanmin(own[c.name]) >= 0]
        if whole:
            notes.append(f"whole numbers: {shortened(whole)}; those that count something go in dataset.counts=")
        if not columns:
            raise DataError(f"{self.path}: every column has one value only; there is nothing to learn")
        kinds = {kind: [c.name for c in columns if c.kind == kind] for kind in ("real", "counts", "binary")}
        kinds["categorical"] = [f"{c.name} ({c.size})" for c in columns if c.kind == "categorical"]
        notes += [f"{kind} columns: {shortened(names)}" for kind, names in kinds.items() if names]
        return columns, own, notes

    def _column(self, cells: pd.Series[Any], name: str) -> Column:
        """Return what a column holds, with more than one value.

        Raises:
            DataError: if it can be no column of a model.
        """
        import pandas as pd

        where = f"{self.path}: column {printable(name)}"
        present = cells.dropna()
        if name in self.categorical or not pd.api.types.is_numeric_dtype(cells):
            if pd.api.types.is_datetime64_any_dtype(cells):
                raise DataError(f"{where} holds dates; make them numbers, or leave them out: dataset.drop=[{name}]")
            _check_texts(present, where, name, is_named=name in self.categorical)
            texts = tuple(sorted({_text(value) for value in present}))
            return Column(name, "binary" if len(texts) == 2 else "categorical", texts)
        numbers = present.to_numpy(np.float64)
        if np.isinf(numbers).any():
            row = present.index[np.isinf(numbers)][0]
            raise DataError(f"{where} has an infinite value in row {row + 1}; correct it, or leave the cell empty")
        is_whole = bool((numbers == np.rint(numbers)).all())
        if name in self.counts:
            if not is_whole or numbers.min() < 0 or numbers.max() > EXACT:
                span = f"numbers from {numbers.min():.9g} to {numbers.max():.9g}"
                raise DataError(f"{where} holds {span}, not counts; take it out of dataset.counts=")
            return Column(name, "counts", (), True)
        if set(np.unique(numbers)) == {0.0, 1.0}:
            return Column(name, "binary", ("False", "True") if cells.dtype == bool else ("0", "1"))
        return Column(name, "real", (), is_whole)

    def _check_missing(self, vectors: np.ndarray) -> None:
        missing = np.isnan(vectors)
        if missing.any() and self.missing == "error":
            row = int(np.flatnonzero(missing.any(1))[0]) + 1
            raise DataError(f"{self.path}: row {row} has an empty cell, and dataset.missing=error; fill it")
        if (empty := np.flatnonzero(missing.all(1))).size:
            rows = shortened([str(row + 1) for row in empty])
            raise DataError(f"{self.path}: rows without any value: {rows}; remove them")


def labels_of(
    frame: pd.DataFrame, column: str | None, path: str, known: tuple[str, ...] | None
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Return the number of each row's label, and the labels' names.

    Args:
        frame: the rows.
        column: of the labels, if they have any.
        path: of the file, for messages.
        known: the labels of a trained model, for which a file may be without that column.
    """
    if column is None or (known is not None and column not in frame.columns):
        return None, ()
    _check_names(frame, "label", [column], path)
    cells = frame[column]
    if cells.isna().any():
        row = int(np.flatnonzero(cells.isna())[0]) + 1
        raise DataError(f"dataset.label={column}: row {row} has no label; give each row one, or leave it out")
    if known is not None:
        texts = [_text(cell) for cell in cells]
        unknown = next((n for n, text in enumerate(texts) if text not in known), None)
        if unknown is not None:
            what, names_known = printable(texts[unknown]), shortened(known)
            raise DataError(f"{path}: the label of row {unknown + 1} is {what}; the model knows {names_known}")
        return np.array([known.index(text) for text in texts], np.int64), known
    names = sorted(set(cells), key=lambda value: (isinstance(value, str), value))
    if len(names) < 2:
        raise DataError(f"dataset.label={column}: all rows have the label {names[0]}; choose another column")
    number = {value: n for n, value in enumerate(names)}
    return np.array([number[value] for value in cells], np.int64), tuple(_text(value) for value in names)


def parts_of(frame: pd.DataFrame, column: str | None, path: str) -> dict[str, np.ndarray]:
    """Return the rows of each split, if a column says so."""
    if column is None:
        return {}
    _check_names(frame, "split", [column], path)
    words = [SPLITS.get(str(cell).strip().lower()) for cell in frame[column]]
    if None in words:
        row = words.index(None)
        what = printable(str(frame[column].iloc[row]))
        raise DataError(f"dataset.split={column}: {what} in row {row + 1}; write train, valid or test")
    parts = {split: np.flatnonzero(np.array(words) == split) for split in ("train", "validation", "test")}
    if not len(parts["train"]):
        raise DataError(f"dataset.split={column}: no row is of train")
    return {split: rows for split, rows in parts.items() if len(rows)}


def _check_names(frame: pd.DataFrame, key: str, names: Sequence[str], path: str) -> None:
    for name in names:
        if name not in frame.columns:
            known = shortened(list(frame.columns))
            raise ConfigError(f"dataset.{key}: {printable(name)} is no column of {path}; it has {known}")


def read(path: Path) -> pd.DataFrame:
    """Return the table in a file.

    Raises:
        DataError: if it is missing, of another kind or broken, has two columns of one name, or pandas is not there.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise DataError('dataset=table needs pandas: pip install "vae-cli[table]"') from error
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() in READERS]
    if not path.exists():
        raise DataError(f"{path} does not exist; set dataset.path to a .csv, .tsv, .parquet or .feather file")
    if not suffixes:
        raise DataError(f"{path} is no .csv, .tsv, .parquet or .feather file; save the table as one")
    reader, options = READERS[suffixes[-1]]
    try:
        if reader == "read_csv":
            head = pd.read_csv(path, header=None, nrows=1, dtype=str, **options).iloc[0]
            twice = [str(name) for name in head[head.duplicated()].dropna().unique()]
            if twice:
                raise DataError(f"{path} has two columns named {shortened(twice)}; rename one")
        frame = getattr(pd, reader)(path, **options)
    except DataError:
        raise
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not in UTF-8 ({describe(error)}); save it in that encoding") from error
    except Exception as error:  # pandas and its engines raise many kinds
        raise DataError(f"{path} cannot be read as a table ({describe(error)}); correct or save it again") from error
    frame.columns = [str(name) for name in frame.columns]
    unnamed = [name for name in frame.columns[:1] if name.startswith("Unnamed:")]
    frame = frame.drop(columns=unnamed)  # the index that pandas writes by itself
    if not len(frame) or not len(frame.columns):
        raise DataError(f"{path} has no rows; name a table with some")
    return frame.reset_index(drop=True)


def vectors_of(frame: pd.DataFrame, columns: Sequence[Column], name: str) -> Float[np.ndarray, "n d"]:
    """Return the rows of a data frame as vectors of a trained model.

    Args:
        frame: with the columns, in any order.
        columns: of the model.
        name: of the frame, for messages.

    Raises:
        DataError: if a column is missing, or has other values than the model knows.
    """
    return as_vectors({column.name: _values_of(frame, column, name) for column in columns}, columns)


def _check_texts(present: pd.Series[Any], where: str, name: str, is_named: bool) -> None:
    """Raise DataError for texts that are numbers with mistakes, or too many different ones."""
    import pandas as pd

    kinds = present.nunique()
    if not is_named and kinds > 2:
        numbers = pd.to_numeric(present, errors="coerce")
        if numbers.notna().mean() >= MOSTLY and not numbers.notna().all():
            row = present.index[numbers.isna()][0]
            text = printable(str(present.loc[row]))
            raise DataError(f'{where}: "{text}" in row {row + 1} is no number; leave the cell empty if it is missing')
    if kinds > MOST_CATEGORIES:
        raise DataError(
            f"{where} has {kinds:,} different values, too many for categories; leave it out: dataset.drop=[{name}]"
        )


def _values_of(frame: pd.DataFrame, column: Column, path: str) -> np.ndarray:
    """Return the values of a column as numbers, NaN or −1 where they are missing.

    Raises:
        DataError: if the file does not have it, or has other values than the model knows.
    """
    if column.name not in frame.columns:
        raise DataError(f"{path} has no column {printable(column.name)}, which the model was trained on; add it")
    cells = frame[column.name]
    if not column.categories:
        try:
            return cells.to_numpy(np.float64, na_value=np.nan)
        except (TypeError, ValueError) as error:
            raise DataError(f"{path}: column {printable(column.name)} holds texts, and the model's numbers") from error
    texts = [None if missing else _text(cell) for cell, missing in zip(cells, cells.isna())]
    number: dict[str | None, float] = {text: n for n, text in enumerate(column.categories)}
    none = -1 if column.kind == "categorical" else np.nan
    for row, text in enumerate(texts):
        if text is not None and text not in number:
            known = shortened(column.categories)
            raise DataError(
                f"{path}: column {printable(column.name)} has {printable(text)} in row {row + 1}; the model knows "
                f"{known}; leave the cell empty if it is missing"
            )
    found = np.array([none if text is None else number[text] for text in texts])
    return found.astype(np.int64) if column.kind == "categorical" else found


def _text(value: Any) -> str:
    """Return the text of a cell; of a whole number without a point."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return str(int(value))
    return str(value)
