"""The user's own single cells: counts of genes in an `.h5ad` file, by anndata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from vae_cli.constraints import FilePath, Index, Name
from vae_cli.data.base import IN_ORDER, SPLITS, Dataset, Source, Standardize
from vae_cli.data.columns import Column
from vae_cli.data.images import CHUNK, Images
from vae_cli.data.sources import values
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.data.sources.table import labels_of, splits_of
from vae_cli.errors import ConfigError, DataError, describe, printable, shortened
from vae_cli.system.paths import expand


class AnnData(Dataset):
    """The cells of an `.h5ad` file, as vectors with a value for each gene.

    Sparse matrices are read some rows at a time. Dense rows that take more than a quarter of the free memory are
    mapped.

    Args:
        path: the file.
        layer: the layer of the values, such as `counts`; None is X.
        label: the column of obs with the labels.
        split: a column of obs whose values are train, valid and test; or `order`, see `Dataset.is_in_order`.
        support: `counts`, `real`, or `auto`: counts if all values are whole numbers from 0 on.
        validation: see `Dataset`.
        standardize: as of `Arrays`.

    Raises:
        ConfigError: if there is no `path`.
    """

    name = "anndata"

    def __init__(
        self,
        path: FilePath | None = None,
        layer: Name | None = None,
        label: Name | None = None,
        split: Name | None = None,
        support: Literal["auto", "counts", "real"] = "auto",
        validation: Index | None = None,
        standardize: Standardize = "auto",
    ) -> None:
        super().__init__("none", validation)
        if not path:
            raise ConfigError("dataset.path is not set: name an .h5ad file")
        self.path, self.layer, self.label = expand(str(path)), layer, label
        self.is_in_order, self.split = split == IN_ORDER, None if split == IN_ORDER else split
        self.support, self.standardize = support, standardize

    def load(self, columns: Sequence[Column] = (), class_names: Sequence[str] = ()) -> Source:
        """Read the cells.

        Args:
            columns: genes of a trained model, which the file must have, in any order.
            class_names: its labels; of a file without that column no cell has one.

        Raises:
            DataError: if the file is missing or broken, or its values are no counts or numbers; with the fix.
        """
        data, path, is_for_model = self._opened(), str(self.path), bool(columns)
        matrix, names = self._matrix(data), [str(name) for name in data.var_names]
        order = self._order(names, columns) if is_for_model else np.arange(len(names))
        shape = (data.n_obs, len(order))
        if not all(shape):
            raise DataError(f"{path} has {shape[0]} cells and {shape[1]} genes; name a file with some")
        rows = max(1, CHUNK // (4 * matrix.shape[1]))
        array = NamedArray(path, values.gathered(_dense(matrix, order, rows, shape[0]), shape))
        contents = values.contents(array.values)
        support = self._support(contents, columns)
        values.support_of([contents], [array], support, is_for_model)
        values.check_values(array, contents, support, "mask", "cells")
        columns = columns or [Column(name, support, (), support == "counts") for name in names]
        labels, classes, notes = labels_of(data.obs, self.label, path, tuple(class_names) if is_for_model else None)
        splits = splits_of(Images(array.values, labels), data.obs, self.split, path, is_for_model)
        train, validation, test = (splits.get(split) for split in SPLITS)
        assert train is not None
        return Source(train, validation, test, support, notes, classes, contents.missing > 0, tuple(columns))

    def _order(self, names: list[str], columns: Sequence[Column]) -> np.ndarray:
        """Return where the genes of a trained model stand in the file."""
        place = {name: number for number, name in enumerate(names)}
        if missing := [column.name for column in columns if column.name not in place]:
            raise DataError(f"{self.path} has no gene {shortened(missing)}, which the model was trained on")
        return np.array([place[column.name] for column in columns])

    def _support(self, contents: values.Contents, columns: Sequence[Column]) -> Literal["counts", "real"]:
        """Return what the values are: as a trained model's, as was set, or by what they are."""
        if columns:
            return "counts" if columns[0].kind == "counts" else "real"
        if self.support != "auto":
            return self.support
        return "counts" if contents.are_whole and contents.low >= 0 else "real"

    def _opened(self) -> Any:
        try:
            import anndata
        except ImportError as error:
            raise DataError('dataset=anndata needs anndata: pip install "vae-cli[anndata]"') from error
        if not self.path.exists():
            raise DataError(f"{self.path} does not exist; set dataset.path to an .h5ad file")
        try:
            data = anndata.read_h5ad(self.path, backed="r")
        except Exception as error:  # h5py and anndata raise many kinds
            raise DataError(f"{self.path} cannot be read as .h5ad ({describe(error)}); save it again") from error
        names = data.var_names.astype(str)
        if names.has_duplicates:
            twice = shortened(sorted(set(names[names.duplicated()])))
            raise DataError(f"{self.path} has several genes named {twice}; save it after adata.var_names_make_unique()")
        return data

    def _matrix(self, data: Any) -> Any:
        if self.layer is None:
            return data.X
        if self.layer not in data.layers:
            has = shortened(sorted(data.layers)) or "none"
            raise ConfigError(f"dataset.layer={printable(self.layer)}: {self.path} has no such layer; it has {has}")
        return data.layers[self.layer]


def _dense(matrix: Any, order: np.ndarray, rows: int, count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, rows):
        part = matrix[start : start + rows]
        dense = np.asarray(part.toarray() if hasattr(part, "toarray") else part, np.float32)
        yield dense[:, order]
