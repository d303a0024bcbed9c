"""3D Shapes: objects in a room, rendered from known factors."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.decoded import fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset
from vae_cli.data.unpacked import Placed, unpack
from vae_cli.errors import DataError
from vae_cli.system.cache import cache_dir

ARCHIVE = "3dshapes.h5"
FACTORS = ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")
TOGETHER = 1000  # images read at a time


class Shapes3D(DownloadedDataset):
    """480,000 color images of 64x64 pixels: hues of floor, wall and object (10 each) × scale (8) × shape (4) ×
    orientation (15).

    Read out of `data_dir/3dshapes.h5` with the package h5py. There are no published splits.

    Args:
        data_dir: where the file is, or goes; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: see `Dataset`.

    References:
        C. Burgess and H. Kim, 3D Shapes Dataset, 2018. https://github.com/google-deepmind/3d-shapes
    """

    name = "shapes3d"
    is_sorted = True
    files = (
        RemoteFile(
            ARCHIVE,
            "sha256:0a0f6ed98baff276a50f3a081a7434d788da63cb135a98189b2a5b5769be1785",
            (f"https://storage.googleapis.com/3d-shapes/{ARCHIVE}",),
        ),
    )

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (3, 64, 64) of bytes, mapped, with their factors.

        Raises:
            DataError: if the file is broken or cannot be had, or h5py is missing.
        """
        try:
            import h5py
        except ImportError as error:
            raise DataError('dataset=shapes3d needs h5py: pip install "vae-cli[shapes3d]"') from error
        self.require()
        with self.reading(ARCHIVE), h5py.File(self.folder / ARCHIVE, "r") as file:
            images, latents = file["images"], file["labels"][:]
            count, height, width, channels = images.shape
            if latents.shape != (count, len(FACTORS)) or images.dtype != np.uint8:
                raise ValueError(f"there are {latents.shape} factors for {count} images of {images.dtype}")
            values = unpack(
                _chunks(images),
                (count, channels, height, width),
                cache_dir() / "unpacked" / self.name,
                fingerprint(self.digest(ARCHIVE)),
                str(self.folder / ARCHIVE),
            )
        # The file has angles, sizes and hues; a factor's values are numbered from the smallest on.
        factors = np.stack([np.unique(column, return_inverse=True)[1].reshape(-1) for column in latents.T], 1)
        images = Images(values, factors=factors.astype(np.int64))
        return Source(images, None, None, "levels256", factor_names=FACTORS)


def _chunks(images: Any) -> Iterator[Placed]:
    for start in range(0, len(images), TOGETHER):
        yield start, images[start : start + TOGETHER].transpose(0, 3, 1, 2)
