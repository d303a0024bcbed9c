"""The user's own single cells: counts of genes in an `.h5ad` file, by anndata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from vae_cli.constraints import FilePath, Index, Name
from vae_cli.data.base import IN_ORDER, Dataset, Source, Standardize
from vae_cli.data.columns import Column
from vae_cli.data.images import CHUNK, Images
from vae_cli.data.sources import values
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.data.sources.table import labels_of, parts_of
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
        data = self._opened()
        matrix, names = self._matrix(data), [str(name) for name in data.var_names]
        order = None
        if columns:
            place = {name: number for number, name in enumerate(names)}
            missing = [column.name for column in columns if column.name not in place]
            if missing:
                raise DataError(f"{self.path} has no gene {shortened(missing)}, which the model was trained on")
            order = np.array([place[column.name] for column in columns])
        shape = (data.n_obs, data.n_vars if order is None else len(order))
        if not all(shape):
            raise DataError(f"{self.path} has {shape[0]} cells and {shape[1]} genes; name a file with some")
        rows = max(1, CHUNK // (4 * matrix.shape[1]))
        array = NamedArray(str(self.path), values.gathered(_dense(matrix, order, rows, shape[0]), shape))
        found = values.contents(array.values)
        wanted = {"counts": "counts", "real": "real"}.get(self.support)
        support = wanted or ("counts" if found.are_whole and found.low >= 0 else "real")
        values.support_of([found], [array], support)  # type: ignore[arg-type]
        values.check_values(array, found, support, "mask", "cells")  # type: ignore[arg-type]
        kind = "counts" if support == "counts" else "real"
        columns = tuple(columns) or tuple(Column(name, kind, (), kind == "counts") for name in names)  # type: ignore[arg-type]
        labels, classes = labels_of(
            data.obs, self.label, str(self.path), tuple(class_names) if order is not None else None
        )
        parts = parts_of(data.obs, self.split, str(self.path)) or {"train": np.arange(shape[0])}
        every = Images(array.values, labels)
        splits = {split: every.take(rows) for split, rows in parts.items()}
        train, validation, test = (splits.get(split) for split in ("train", "validation", "test"))
        assert train is not None
        return Source(train, validation, test, support, (), classes, found.missing > 0, columns)  # type: ignore[arg-type]

    def _opened(self) -> Any:
        try:
            import anndata
        except ImportError as error:
            raise DataError("dataset=anndata needs anndata: pip install 'vae-cli[anndata]'") from error
        if not self.path.exists():
            raise DataError(f"{self.path} does not exist; set dataset.path to an .h5ad file")
        try:
            return anndata.read_h5ad(self.path, backed="r")
        except Exception as error:  # h5py and anndata raise many kinds
            raise DataError(f"{self.path} cannot be read as .h5ad ({describe(error)}); save it again") from error

    def _matrix(self, data: Any) -> Any:
        if self.layer is None:
            return data.X
        if self.layer not in data.layers:
            has = shortened(sorted(data.layers)) or "none"
            raise ConfigError(f"dataset.layer={printable(self.layer)}: {self.path} has no such layer; it has {has}")
        return data.layers[self.layer]


def _dense(matrix: Any, order: np.ndarray | None, rows: int, count: int) -> Iterator[np.ndarray]:
    for start in range(0, count, rows):
        part = matrix[start : start + rows]
        dense = np.asarray(part.toarray() if hasattr(part, "toarray") else part, np.float32)
        yield dense if order is None else dense[:, order]
