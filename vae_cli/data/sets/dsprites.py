"""dSprites: shapes drawn from known factors, as published."""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.decoded import fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import CHUNK, Images
from vae_cli.data.sets.downloaded import DownloadedDataset
from vae_cli.data.unpacked import Placed, unpack
from vae_cli.system.cache import cache_dir

ARCHIVE = "dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz"
FACTORS = ("shape", "scale", "orientation", "x", "y")


class DSprites(DownloadedDataset):
    """737,280 black-and-white images of 64x64 pixels: shape (3) × scale (6) × orientation (40) × x (32) × y (32).

    Read out of `data_dir/dsprites_ndarray_co1sh3sc6or40x32y32_64x64.npz`, whose metadata, a pickle, is left alone. The
    sixth factor, a color that is always white, is left out. There are no published splits.

    Args:
        data_dir: where the archive is, or goes; None is the user's cache directory.
        binarize: see `Dataset`; the values are binary already.
        validation: see `Dataset`.

    References:
        L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017.
    """

    name = "dsprites"
    is_sorted = True
    files = (
        RemoteFile(
            ARCHIVE,
            "md5:7da33b31b13a06f4b04a70402ce90c2e",
            (
                f"https://github.com/google-deepmind/dsprites-dataset/raw/master/{ARCHIVE}",
                f"https://raw.githubusercontent.com/google-deepmind/dsprites-dataset/master/{ARCHIVE}",
            ),
        ),
    )

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 64, 64) of zeros and ones, mapped, with their factors.

        Raises:
            DataError: if the archive is broken, or cannot be had.
        """
        self.require()
        with self.reading(ARCHIVE):
            with zipfile.ZipFile(self.folder / ARCHIVE) as archive:
                with archive.open("latents_classes.npy") as file:
                    classes = np.lib.format.read_array(file, allow_pickle=False)
                with _opened(archive) as (_, shape):
                    pass
                values = unpack(
                    _chunks(archive),
                    (shape[0], 1, *shape[1:]),
                    cache_dir() / "unpacked" / self.name,
                    fingerprint(self.digest(ARCHIVE)),
                    str(self.folder / ARCHIVE),
                )
            if classes.shape != (len(values), 1 + len(FACTORS)):
                raise ValueError(f"there are {classes.shape} factors for {len(values)} images")
        factors = np.ascontiguousarray(classes[:, 1:], np.int64)
        return Source(Images(values, factors=factors), None, None, "binary", factor_names=FACTORS)


@contextmanager
def _opened(archive: zipfile.ZipFile) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """Open the array of images, a few bytes at a time; give what follows its header, and its shape."""
    with archive.open("imgs.npy") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, is_fortran, dtype = read(file)
        if dtype != np.uint8 or len(shape) != 3 or is_fortran:
            raise ValueError(f"its images are {dtype} {shape}")
        yield file, shape


def _chunks(archive: zipfile.ZipFile) -> Iterator[Placed]:
    with _opened(archive) as (file, (count, height, width)):
        size = max(1, CHUNK // (height * width))
        for start in range(0, count, size):
            images = min(size, count - start)
            values = np.frombuffer(file.read(images * height * width), np.uint8)
            yield start, values.reshape(images, 1, height, width)
