"""CIFAR-10."""

from __future__ import annotations

import tarfile

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset
from vae_cli.data.sets.unpickle import ArrayUnpickler

ARCHIVE = "cifar-10-python.tar.gz"
TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
TEST = ("test_batch",)
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CIFAR10(DownloadedDataset):
    """60,000 color photographs of 32x32 pixels in 10 classes: 50,000 for training, 10,000 for the test.

    Read out of `data_dir/cifar-10-python.tar.gz`; the pickles in it are opened by an unpickler that knows arrays
    and nothing else.

    Args:
        data_dir: where the archive is, or goes; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
    """

    name = "cifar10"
    files = (
        RemoteFile(ARCHIVE, "md5:c58f30108f718f92721af3b95e74349a", (f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}",)),
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
                        content = ArrayUnpickler(file, encoding="latin1").load()
                        batches[name] = content["data"].reshape(-1, 3, 32, 32), content["labels"]
            train, test = (
                Images(
                    np.concatenate([batches[name][0] for name in names]),
                    np.concatenate([batches[name][1] for name in names]).astype(np.int64),
                )
                for names in (TRAIN, TEST)
            )
        except Exception as error:  # a tar file, a gzip stream and a pickle break in many ways
            raise self.broken(ARCHIVE, error) from error
        return Source(train, validation=None, test=test, support="levels256", class_names=NAMES)
