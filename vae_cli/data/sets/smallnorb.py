"""smallNORB: photographs of toys under known views and lights."""

from __future__ import annotations

import gzip
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from vae_cli.constraints import ImageSize, Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.decoded import fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset
from vae_cli.data.unpacked import Placed, resized, unpack
from vae_cli.system.cache import cache_dir

MIRROR = "https://cs.nyu.edu/~ylclab/data/norb-v1.0-small"
STEMS = {
    "train": "smallnorb-5x46789x9x18x6x2x96x96-training",
    "test": "smallnorb-5x01235x9x18x6x2x96x96-testing",
}
SUMS = {  # SHA-256
    "train-dat": "5ffd6272a07d32695ee1082a26a41a93a37aab8c28da047f8c34ed348d214873",
    "train-cat": "2784e542c1922060691090952b6cd6278879a216c90f81476f0f00256d42cdaa",
    "train-info": "de7eb932ebe7a4ee16217fead60660d0eb3d23632c2f4d1c51f88c501c17bf32",
    "test-dat": "cf7104eed3e51174d2f65b66d1e5878b9da233b886f161b0d88f4510ba2c7474",
    "test-cat": "ecaf6d5bb8c3bc5eab9cf0258f6d2198dd474e016e374836fc097f2e5ff509ff",
    "test-info": "16adf314226327ee006d1a44db8cfef52773c06c829951d5653a9f6f310248a2",
}
CATEGORIES = ("animal", "human", "airplane", "truck", "car")
FACTORS = ("category", "instance", "elevation", "azimuth", "lighting")
TYPES = {0x1E3D4C55: np.dtype("u1"), 0x1E3D4C54: np.dtype("<i4")}  # magic numbers of bytes and of integers
TOGETHER = 300  # pairs of images read at a time
CAMERAS = 2


def _file(part: str, kind: str) -> str:
    return f"{STEMS[part]}-{kind}.mat.gz"


class SmallNORB(DownloadedDataset):
    """48,600 gray photographs of toys of 96x96 pixels, resized: 24,300 for training, 24,300 of other toys for the test.

    category (5) × instance (5 in each part, of 10) × elevation (9) × azimuth (18) × lighting (6), by the first of the
    two cameras. The category is the label too. Read out of the six files in `data_dir/smallnorb/`.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        image_size: pixels a side.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        Y. LeCun, F. J. Huang and L. Bottou, Learning Methods for Generic Object Recognition with Invariance to Pose and
        Lighting, CVPR 2004.
    """

    name = "smallnorb"
    is_sorted = True
    subfolder = "smallnorb"
    files = tuple(
        RemoteFile(_file(*key.split("-")), f"sha256:{digest}", (f"{MIRROR}/{_file(*key.split('-'))}",))
        for key, digest in SUMS.items()
    )

    def __init__(
        self,
        data_dir: str | None = None,
        image_size: ImageSize = 64,
        binarize: Binarize = "none",
        validation: Index | None = 2430,
    ) -> None:
        super().__init__(data_dir, binarize, validation)
        self.image_size = image_size

    def load(self) -> Source:
        """Read images (1, image_size, image_size) of bytes, mapped, with their factors and categories.

        Raises:
            DataError: if a file is broken, or cannot be had.
        """
        self.require()
        train, test = (self._images(part) for part in STEMS)
        return Source(train, None, test, "levels256", class_names=CATEGORIES, factor_names=FACTORS)

    def _images(self, part: str) -> Images:
        file = _file(part, "dat")
        with self.reading(file):
            category, info = (self._whole(_file(part, kind)) for kind in ("cat", "info"))
            factors = np.concatenate([category[:, None], info], 1).astype(np.int64)
            factors[:, FACTORS.index("azimuth")] //= 2  # the file has tens of degrees, every second
            shape = (len(factors), 1, self.image_size, self.image_size)
            values = unpack(
                _chunks(self.folder / file, self.image_size),
                shape,
                cache_dir() / "unpacked" / f"{self.name}-{part}-{self.image_size}",
                fingerprint(self.digest(file), *shape),
                str(self.folder / file),
            )
        return Images(values, labels=factors[:, 0].copy(), factors=factors)

    def _whole(self, file: str) -> np.ndarray:
        with _opened(self.folder / file) as (content, dtype, shape):
            return np.frombuffer(content.read(), dtype).reshape(shape)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes], np.dtype, tuple[int, ...]]]:
    """Open a file of NORB's format: magic, number of axes, their sizes (three at least), values. All little-endian."""
    with gzip.open(path) as file:
        magic, axes = struct.unpack("<2i", file.read(8))
        if magic not in TYPES or not 1 <= axes <= 4:
            raise ValueError(f"{path.name} is no file of NORB's format")
        stored = max(3, axes)
        sizes = struct.unpack(f"<{stored}i", file.read(4 * stored))
        yield file, TYPES[magic], sizes[:axes]  # type: ignore[misc]


def _chunks(path: Path, size: int) -> Iterator[Placed]:
    with _opened(path) as (file, dtype, (count, cameras, height, width)):
        if dtype != np.uint8 or cameras != CAMERAS:
            raise ValueError(f"{path.name} has {cameras} cameras and {dtype}")
        for start in range(0, count, TOGETHER):
            pairs = min(TOGETHER, count - start)
            values = np.frombuffer(file.read(pairs * cameras * height * width), dtype)
            first = values.reshape(pairs, cameras, height, width)[:, 0]
            yield start, np.stack([resized(image, size) for image in first])
