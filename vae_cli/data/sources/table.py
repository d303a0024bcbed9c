"""The user's own tables: CSV, Parquet and Feather files, by pandas."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from jaxtyping import Float

from vae_cli.constraints import Described, FilePath, Index, Length, Name
from vae_cli.data.base import IN_ORDER, SPLITS, Dataset, Source, Standardize, Support
from vae_cli.data.columns import Column, support_of, width
from vae_cli.data.images import Images, Split
from vae_cli.data.sources import table_file, values
from vae_cli.data.sources.table_columns import column_of, drop, text_of, vectors_of
from vae_cli.data.sources.table_file import TableFile
from vae_cli.data.sources.values import Missing
from vae_cli.errors import ConfigError, DataError, at, counted, printable, shortened
from vae_cli.system.paths import expand

if TYPE_CHECKING:
    import pandas as pd

MOST_LABELS = 200
PARTS = {  # what a split is called in a column
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
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
        split: a column whose values are train, valid and test; or `order`, see `Dataset.is_in_order`.
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
        self.label, self.categorical, self.counts = label, categorical or (), counts or ()
        self.is_in_order, self.split = split == IN_ORDER, None if split == IN_ORDER else split
        self.standardize, self.missing = standardize, missing

    def load(self, columns: Sequence[Column] = (), class_names: Sequence[str] = ()) -> Source:
        """Read the rows.

        Args:
            columns: of a trained model, which the file must have, in any order.
            class_names: its labels; of a file without that column no row has one.

        Raises:
            DataError: if the file is missing or broken, or a column cannot be modelled; with the fix.
        """
        table, path = self._opened(), str(self.path)
        labels, classes, notes = labels_of(table, self.label, path, tuple(class_names) if columns else None)
        is_for_model = bool(columns)
        if not is_for_model:
            columns, notes = self._columns(table)
        vectors = self._vectors(table, columns)
        contents = values.contents(vectors)
        self._check_missing(vectors, contents)
        if contents.missing:
            share = contents.missing / vectors.size
            notes = (*notes, f"{contents.missing:,} of {vectors.size:,} values are missing ({share:.1%})")
        splits = splits_of(Images(vectors, labels), table, self.split, path, is_for_model)
        has_missing = contents.missing > 0 and Split.of(splits["train"], 1.0).has_missing()
        train, validation, test = (splits.get(split) for split in SPLITS)
        assert train is not None
        support: Support = support_of(columns)  # type: ignore[assignment]
        return Source(train, validation, test, support, notes, classes, has_missing, tuple(columns))

    def _opened(self) -> TableFile:
        return table_file.opened(self.path)

    def _vectors(self, table: TableFile, columns: Sequence[Column]) -> Float[np.ndarray, "n d"]:
        frames = table_file.frames(table, [column.name for column in columns], str(self.path))
        chunks = (vectors_of(frame, columns, str(self.path)) for frame in frames)
        return values.gathered(chunks, (len(table), width(columns)))

    def _chosen(self, table: TableFile) -> list[str]:
        """Return the names of the columns that are used."""
        for key in ("columns", "drop", "categorical", "counts"):
            _check_names(table, key, getattr(self, key) or (), str(self.path))
        left_out = {*(self.drop or ()), self.label, self.split}
        chosen = [name for name in dict.fromkeys(self.columns or table.columns) if name not in left_out]
        if not chosen:
            raise DataError(f"{self.path}: no column is left; choose others with dataset.columns= or dataset.drop=")
        return chosen

    def _columns(self, table: TableFile) -> tuple[list[Column], tuple[str, ...]]:
        """Return the columns that a model is trained on, and notes."""
        columns: list[Column] = []
        same: list[str] = []
        for name in self._chosen(table):
            cells = table[name]
            try:
                kinds = cells.nunique(dropna=True)
            except TypeError as error:  # of what is no single value
                what = f"holds {type(cells.dropna().iloc[0]).__name__}s"
                raise DataError(f"{self.path}: column {printable(name)} {what}; leave it out: {drop(name)}") from error
            if kinds <= 1:
                same.append(name)
            else:
                columns.append(column_of(cells, name, str(self.path), self.categorical, self.counts))
        if not columns:
            raise DataError(f"{self.path}: every column has one value only; there is nothing to learn")
        notes = [f"{counted(len(same), 'column')} left out, of one value only: {shortened(same)}"] if same else []
        if whole := [column.name for column in columns if column.kind == "real" and column.is_whole]:
            notes.append(
                f"whole numbers: {shortened(whole)}; those that count something go in dataset.counts=, and those whose "
                "every value many rows have in dataset.categorical="
            )
        kinds_of = {kind: [c.name for c in columns if c.kind == kind] for kind in ("real", "counts", "binary")}
        kinds_of["categorical"] = [f"{c.name} ({c.size})" for c in columns if c.kind == "categorical"]
        return columns, (*notes, *(f"{kind} columns: {shortened(names)}" for kind, names in kinds_of.items() if names))

    def _check_missing(self, vectors: np.ndarray, inside: values.Contents) -> None:
        if inside.missing and self.missing == "error":
            has_gap = np.concatenate([np.isnan(chunk).any(1) for chunk in values.chunks(vectors)])
            row = at(int(has_gap.argmax()))
            raise DataError(f"{self.path}: {row} has an empty cell, and dataset.missing=error; fill it")
        if inside.empty:
            rows = shortened([str(row) for row in inside.empty])
            raise DataError(f"{self.path}: rows without any value: {rows} (counted from 0); remove them")


class Frame(Table):
    """The rows of a pandas data frame, as `Table` finds them in a file.

    Args:
        frame: the rows.
        keys: those of `Table` besides the path, such as `label`.
    """

    def __init__(self, frame: Any, **keys: Any) -> None:
        super().__init__("the data frame", **keys)
        self.path, self._frame = Path("the data frame"), frame.rename(columns=str).reset_index(drop=True)

    def _opened(self) -> TableFile:
        if not len(self._frame):
            raise DataError("the data frame has no rows; give one with some")
        return self._frame


def labels_of(
    table: TableFile | pd.DataFrame, column: str | None, path: str, trained: tuple[str, ...] | None
) -> tuple[np.ndarray | None, tuple[str, ...], tuple[str, ...]]:
    """Return the number of each row's label, the labels' names, and notes.

    Args:
        table: the file, or its rows.
        column: of the labels, if they have any.
        path: of the file, for messages.
        trained: the labels of a trained model, if the rows are for one; without that column, or with other labels, they
            have none then.

    Raises:
        DataError: if rows for a training have no label, all the same or too many.
    """
    if column is None or (trained is not None and column not in table.columns):
        return None, (), ()
    _check_names(table, "label", [column], path)
    cells = table[column]
    if trained is not None:
        texts = [None if missing else text_of(cell) for cell, missing in zip(cells, cells.isna())]
        unknown = next((n for n, text in enumerate(texts) if text not in trained), None)
        if unknown is None:
            return np.array([trained.index(str(text)) for text in texts], np.int64), trained, ()
        what = "missing" if texts[unknown] is None else printable(str(texts[unknown]))
        note = f"the label of {at(unknown)} is {what}, and the model knows {shortened(trained)}: no label is used"
        return None, (), (note,)
    if cells.isna().any():
        row = int(np.flatnonzero(cells.isna())[0])
        raise DataError(f"dataset.label={column}: {at(row)} has no label; give each row one, or leave it out")
    names = sorted(set(cells), key=lambda value: (isinstance(value, str), value))
    if len(names) < 2:
        raise DataError(f"dataset.label={column}: all rows have the label {names[0]}; choose another column")
    if len(names) > MOST_LABELS or any(isinstance(each, float) and not each.is_integer() for each in names):
        raise DataError(f"dataset.label={column}: {len(names):,} different values are no classes; drop it, or bin them")
    number = {value: n for n, value in enumerate(names)}
    return np.array([number[value] for value in cells], np.int64), tuple(text_of(value) for value in names), ()


def splits_of(
    every: Images, table: TableFile | pd.DataFrame, column: str | None, path: str, is_for_model: bool
) -> dict[str, Images]:
    """Return the splits of all rows, `train` at least: as a column says, else all are that.

    Args:
        every: all rows.
        table: the file, or what is beside its rows.
        column: of the splits, if there is one.
        path: of the file, for messages.
        is_for_model: the rows are for a trained model, and may be of no split or of some.

    Raises:
        DataError: if the column has other words, or no row is of train.
    """
    if column is None or (is_for_model and column not in table.columns):
        return {"train": every}
    _check_names(table, "split", [column], path)
    words = [PARTS.get(str(cell).strip().lower()) for cell in table[column]]
    if None in words:
        row = words.index(None)
        what = printable(str(table[column].iloc[row]))
        raise DataError(f"dataset.split={column}: {what} in {at(row)}; write train, valid or test")
    parts = {split: np.flatnonzero(np.array(words) == split) for split in SPLITS}
    if len(parts["train"]):
        return {split: every.take(rows) for split, rows in parts.items() if len(rows)}
    if is_for_model:
        return {"train": every}
    raise DataError(f"dataset.split={column}: no row is of train")


def _check_names(table: TableFile | pd.DataFrame, key: str, names: Sequence[str], path: str) -> None:
    for name in names:
        if name not in table.columns:
            names_there = shortened(list(table.columns))
            raise ConfigError(f"dataset.{key}: {printable(name)} is no column of {path}; it has {names_there}")
