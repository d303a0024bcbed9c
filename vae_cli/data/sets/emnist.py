"""EMNIST: handwritten letters and digits in MNIST's format."""

from __future__ import annotations

import string
import zipfile
from typing import Literal

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets import idx
from vae_cli.data.sets.downloaded import DELETE, DownloadedDataset, exists
from vae_cli.errors import DataError

ARCHIVE = "gzip.zip"
MERGED = string.digits + string.ascii_uppercase + "abdefghnqrt"  # letters that look alike in both cases are one class
NAMES = {
    **dict.fromkeys(("balanced", "bymerge"), MERGED),
    "byclass": string.digits + string.ascii_uppercase + string.ascii_lowercase,
    "letters": string.ascii_uppercase,
}
Subset = Literal["balanced", "byclass", "bymerge", "letters", "digits", "mnist"]


class EMNIST(DownloadedDataset):
    """Handwritten letters and digits of 28x28 bytes with labels, turned upright.

    Read from the unpacked files in `data_dir/EMNIST/raw/`, where torchvision puts them, else out of the archive.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        subset: `balanced` (112,800 for training and 18,800 for the test, 47 classes), `byclass` (814,255, 62),
            `bymerge` (814,255, 47), `letters` (124,800, 26), `digits` (280,000, 10) or `mnist` (70,000, 10).
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        G. Cohen et al., EMNIST: Extending MNIST to Handwritten Letters, IJCNN 2017, arXiv:1702.05373.
    """

    name = "emnist"
    subfolder = "EMNIST/raw"
    files = (
        RemoteFile(
            ARCHIVE,
            "md5:58c8d27c78d21e728a6bc7b3cc06412e",
            ("https://biometrics.nist.gov/cs_links/EMNIST/gzip.zip",),
        ),
    )

    def __init__(
        self,
        data_dir: str | None = None,
        subset: Subset = "balanced",
        binarize: Binarize = "none",
        validation: Index | None = 5000,
    ) -> None:
        super().__init__(data_dir, binarize, validation)
        self.subset = subset

    def load(self) -> Source:
        """Read images (1, 28, 28) of bytes with labels from 0.

        Raises:
            DataError: if the files are broken, or cannot be had.
        """
        parts = {part: self._unpacked(part) for part in ("train", "test")}
        if None in parts.values():
            self.require()
            parts = {part: self._packed(part) for part in parts}
        train, test = (self._images(*pair) for pair in parts.values() if pair is not None)
        names = tuple(NAMES.get(self.subset, ""))
        return Source(train, validation=None, test=test, support="levels256", class_names=names)

    def _names(self, part: str) -> tuple[str, str]:
        stem = f"emnist-{self.subset}-{part}"
        return f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte"

    def _unpacked(self, part: str) -> tuple[np.ndarray, np.ndarray] | None:
        images, labels = (self.folder / name for name in self._names(part))
        if not (exists(images) and exists(labels)):
            return None
        return idx.read(images, 3, DELETE), idx.read(labels, 1, DELETE)

    def _packed(self, part: str) -> tuple[np.ndarray, np.ndarray]:
        path, (images, labels) = self.folder / ARCHIVE, self._names(part)
        try:
            with zipfile.ZipFile(path) as archive:
                packed = {name: archive.read(f"gzip/{name}.gz") for name in (images, labels)}
        except (OSError, KeyError, zipfile.BadZipFile) as error:
            raise self.broken(ARCHIVE, error) from error
        values = idx.decode(packed[images], f"{path}: {images}", 3, "delete the archive")
        return values, idx.decode(packed[labels], f"{path}: {labels}", 1, "delete the archive")

    def _images(self, values: np.ndarray, labels: np.ndarray) -> Images:
        first = 1 if self.subset == "letters" else 0
        if values.shape[1:] != (28, 28) or len(values) != len(labels) or not len(values) or labels.min() < first:
            size = "x".join(map(str, values.shape))
            raise DataError(
                f"{self.folder}: the files of emnist-{self.subset} hold {size} values and {len(labels)} labels from "
                f"{labels.min(initial=255)}, not images of 28x28 each with a label from {first}; delete them"
            )
        return Images(np.ascontiguousarray(values.transpose(0, 2, 1))[:, None], labels.astype(np.int64) - first)
