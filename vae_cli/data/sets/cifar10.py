"""CIFAR-10."""

from __future__ import annotations

import tarfile

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset

ARCHIVE = "cifar-10-binary.tar.gz"
TRAIN = tuple(f"data_batch_{number}.bin" for number in range(1, 6))
TEST = ("test_batch.bin",)
RECORD = 1 + 3 * 32 * 32  # bytes: a label, then the red, green and blue values of an image, row by row
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(DownloadedDataset):
    """60,000 color photographs of 32x32 pixels in 10 classes: 50,000 for training, 10,000 for the test.

    Read out of `data_dir/cifar-10-binary.tar.gz`, the version for C programs, whose files hold bytes and no code.

    Args:
        data_dir: where the archive is, or goes; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    name = "cifar10"
    files = (
        RemoteFile(ARCHIVE, "md5:c32a1d4ab5d03f1284b67883e8d87530", (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",)),
    )

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = 5000
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (3, 32, 32) of bytes with labels 0 … 9.

        Raises:
            DataError: if the archive is broken, or cannot be had.
        """
        self.require()
        batches = {}
        try:
            with tarfile.open(self.folder / ARCHIVE) as archive:
                for member in archive:
                    name = member.name.rpartition("/")[2]
                    file = archive.extractfile(member) if name in TRAIN + TEST else None
                    if file is not None:
                        batches[name] = np.frombuffer(file.read(), np.uint8).reshape(-1, RECORD)
            train, test = (np.concatenate([batches[name] for name in names]) for names in (TRAIN, TEST))
        except Exception as error:  # a tar file, a gzip stream and an array break in many ways
            raise self.broken(ARCHIVE, error) from error
        return Source(_images(train), validation=None, test=_images(test), support="levels256", class_names=NAMES)


def _images(records: np.ndarray) -> Images:
    return Images(np.ascontiguousarray(records[:, 1:]).reshape(-1, 3, 32, 32), records[:, 0].astype(np.int64))
