"""Caltech 101 silhouettes: outlines of objects, filled."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset

FILE = "caltech101_silhouettes_28_split1.mat"
MIRROR = "https://people.cs.umass.edu/~marlin/data"
SIDE = 28
PARTS = ("train", "val", "test")


class Caltech101Silhouettes(DownloadedDataset):
    """8,671 silhouettes of objects in 101 classes, 28x28 zeros and ones: 4,100 for training, 2,264 for validation,
    2,307 for the test.

    White figures on black, as the papers on variational autoencoders have them: the file's are black on white. An
    image's 784 values are column by column, as MATLAB has them; they are turned here, so that the figures stand
    upright.

    Read from `data_dir/Caltech101Silhouettes/caltech101_silhouettes_28_split1.mat`. The author publishes no checksum.
    The MD5 here is that of DeepMind's NEVIS benchmark, which downloads the same address.

    Args:
        data_dir: where the file is, or goes; None is the user's cache directory.
        binarize: see `Dataset`; the values are binary already, and it changes nothing.
        validation: None uses the set's own 2,264 images; 0 trains on them too and selects nothing.

    References:
        B. M. Marlin, K. Swersky, B. Chen and N. de Freitas, Inductive Principles for Restricted Boltzmann Machine
        Learning, AISTATS 2010.
    """

    name = "caltech101_silhouettes"
    subfolder = "Caltech101Silhouettes"
    files = (RemoteFile(FILE, "md5:4483e9c14b188fd09937f9ea6f9ea777", (f"{MIRROR}/{FILE}",)),)

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 28, 28) of zeros and ones, uint8, with labels 0 … 100 and their names.

        Raises:
            DataError: if the file is broken or holds other values, or cannot be had.
        """
        from scipy.io import loadmat

        self.require()
        arrays = [f"{part}_{kind}" for part in PARTS for kind in ("data", "labels")]
        with self.reading(FILE):
            content = loadmat(self.folder / FILE, variable_names=("classnames", *arrays))
            names = tuple(str(name.item()) for name in content["classnames"].ravel())  # a cell array of MATLAB
            train, validation, test = (_images(content, part, len(names)) for part in PARTS)
        return Source(train, validation, test, support="binary", class_names=names)


def _images(content: Mapping[str, Any], part: str, classes: int) -> Images:
    """Return a split of the file.

    Raises:
        ValueError: if these are no images of zeros and ones with a label from 1 on each.
    """
    rows, labels = content[f"{part}_data"], content[f"{part}_labels"].ravel().astype(np.int64)
    if rows.ndim != 2 or rows.shape[1] != SIDE * SIDE or len(rows) != len(labels) or not len(rows):
        raise ValueError(f"it has {part} images {rows.shape} and {len(labels)} labels")
    if not np.isin(rows, (0, 1)).all():
        raise ValueError(f"its {part} images have other values than 0 and 1")
    if labels.min() < 1 or labels.max() > classes:
        raise ValueError(f"its {part} labels are from {labels.min()} to {labels.max()}, of {classes} classes")
    figures = 1 - rows.astype(np.uint8).reshape(-1, 1, SIDE, SIDE)
    return Images(np.ascontiguousarray(figures.swapaxes(2, 3)), labels - 1)
