"""CelebA: faces."""

from __future__ import annotations

import io
import zipfile
from functools import partial

import numpy as np

from vae_cli.constraints import ImageSize, Index
from vae_cli.data.base import SPLITS, Binarize, Source
from vae_cli.data.decoded import Pictures, decode, fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.pictures import square
from vae_cli.data.sets.downloaded import DELETE, DownloadedDataset
from vae_cli.system.cache import cache_dir

ARCHIVE, PARTITION = "img_align_celeba.zip", "list_eval_partition.txt"
CROP = 148  # of 178x218 pixels: the face without most of what is behind it


class CelebA(DownloadedDataset):
    """202,599 aligned faces in color, in the split that comes with them: 162,770, 19,867 and 19,962.

    Read out of `data_dir/celeba/img_align_celeba.zip`, cropped to the middle 148x148 pixels, resized, and kept
    decoded. It comes from Google Drive, by the package gdown.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        image_size: pixels a side.
        binarize: see `Dataset`.
        validation: None for the set's own; 0 trains on those images too.

    References:
        Z. Liu, P. Luo, X. Wang and X. Tang, Deep Learning Face Attributes in the Wild, ICCV 2015,
        arXiv:1411.7766.
    """

    name = "celeba"
    subfolder = "celeba"
    files = (
        RemoteFile(PARTITION, "md5:d32c9cbf5e040fd4025c592c306e6668", ("gdrive:0B7EVK8r0v71pY0NSMzRuSXJEVkk",)),
        RemoteFile(ARCHIVE, "md5:00d2c5bc6d35e252742224ab0c1e8fcb", ("gdrive:0B7EVK8r0v71pZjFTYXZWM3FlRnM",)),
    )

    def __init__(
        self,
        data_dir: str | None = None,
        image_size: ImageSize = 64,
        binarize: Binarize = "none",
        validation: Index | None = None,
    ) -> None:
        super().__init__(data_dir, binarize, validation)
        self.image_size = image_size

    def load(self) -> Source:
        """Read images (3, image_size, image_size) of bytes, without labels.

        Raises:
            DataError: if a file is broken, or cannot be had.
        """
        self.require()
        try:
            lines = (self.folder / PARTITION).read_text(encoding="utf-8").split()
            names, numbers = lines[::2], np.array(lines[1::2], np.int64)
        except (OSError, ValueError) as error:
            raise self.broken(PARTITION, error) from error
        values = self._decode(names)
        parts = {split: np.flatnonzero(numbers == number) for number, split in enumerate(SPLITS)}
        train, validation, test = (Images(values, rows=parts[split]) for split in SPLITS)
        return Source(train, validation, test, support="levels256")

    def _decode(self, names: list[str]) -> np.ndarray:
        try:
            with zipfile.ZipFile(self.folder / ARCHIVE) as archive:
                shape = (3, self.image_size, self.image_size)
                pictures = Pictures(
                    names,
                    open=lambda name: io.BytesIO(archive.read(f"img_align_celeba/{name}")),
                    prepare=partial(square, size=self.image_size, channels=3, crop=CROP),
                    shape=shape,
                    fingerprint=fingerprint(self.digest(ARCHIVE), CROP, *shape),
                )
                cache = cache_dir() / "decoded" / f"{self.name}-{self.image_size}"
                return decode(pictures, cache, str(self.folder / ARCHIVE), DELETE).values
        except (OSError, zipfile.BadZipFile) as error:
            raise self.broken(ARCHIVE, error) from error
