"""Cars3D: renderings of models of cars."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from vae_cli.constraints import ImageSize, Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.decoded import fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset
from vae_cli.data.unpacked import Placed, resized, unpack
from vae_cli.system.cache import cache_dir

ARCHIVE = "nips2015-analogy-data.tar.gz"
FACTORS = ("elevation", "azimuth", "object")
ELEVATIONS, AZIMUTHS, CARS = 4, 24, 183


class Cars3D(DownloadedDataset):
    """17,568 color images of cars: elevation (4) × azimuth (24) × object (183), of 128x128 pixels, resized.

    Read out of `data_dir/nips2015-analogy-data.tar.gz`. The objects are numbered by the names of their files. There are
    no published splits.

    Args:
        data_dir: where the archive is, or goes; None is the user's cache directory.
        image_size: pixels a side.
        binarize: see `Dataset`.
        validation: see `Dataset`.

    References:
        S. E. Reed, Y. Zhang, Y. Zhang and H. Lee, Deep Visual Analogy-Making, NIPS 2015.
    """

    name = "cars3d"
    is_sorted = True
    files = (
        RemoteFile(ARCHIVE, "md5:4e866a7919c1beedf53964e6f7a23686", (f"http://www.scottreed.info/files/{ARCHIVE}",)),
    )
    cars = CARS

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
        """Read images (3, image_size, image_size) of bytes, mapped, with their factors.

        Raises:
            DataError: if the archive is broken, or cannot be had.
        """
        self.require()
        sizes = (self.cars, ELEVATIONS, AZIMUTHS)
        shape = (int(np.prod(sizes)), 3, self.image_size, self.image_size)
        with self.reading(ARCHIVE):
            values = unpack(
                _chunks(self.folder / ARCHIVE, self.image_size),
                shape,
                cache_dir() / "unpacked" / f"{self.name}-{self.image_size}",
                fingerprint(self.digest(ARCHIVE), *shape),
                str(self.folder / ARCHIVE),
            )
        car, elevation, azimuth = np.unravel_index(np.arange(len(values)), sizes)
        factors = np.stack([elevation, azimuth, car], 1).astype(np.int64)
        return Source(Images(values, factors=factors), None, None, "levels256", factor_names=FACTORS)


def _chunks(path: Path, size: int) -> Iterator[Placed]:
    """Yield the images of each car at its place by name, in the order of the archive."""
    from scipy.io import loadmat

    each = ELEVATIONS * AZIMUTHS
    with tarfile.open(path) as archive:
        names = sorted(member.name for member in archive if _is_car(member))
        for member in archive:
            file = archive.extractfile(member) if _is_car(member) else None
            if file is not None:
                images = loadmat(io.BytesIO(file.read()), variable_names=("im",))["im"]  # (H, W, 3, azimuth, elevation)
                views = images.transpose(4, 3, 0, 1, 2).reshape(each, *images.shape[:3])
                yield names.index(member.name) * each, np.stack([resized(view, size) for view in views])


def _is_car(member: tarfile.TarInfo) -> bool:
    return member.isfile() and member.name.endswith("_mesh.mat") and "/cars/" in f"/{member.name}"
