"""Street View House Numbers, cropped digits."""

from __future__ import annotations

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset

MIRROR = "http://ufldl.stanford.edu/housenumbers"
SUMS = {
    "train_32x32.mat": "e26dedcc434d2e4c54c9b2d4a06d8373",
    "test_32x32.mat": "eb5a983be6a315427106f1b164d9cef3",
}


class SVHN(DownloadedDataset):
    """99,289 photographs of digits of 32x32 color pixels: 73,257 for training, 26,032 for the test.

    Read from `data_dir/train_32x32.mat` and `test_32x32.mat`.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        Y. Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, NIPS workshop, 2011.
    """

    name = "svhn"
    files = tuple(RemoteFile(file, f"md5:{md5}", (f"{MIRROR}/{file}",)) for file, md5 in SUMS.items())

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = 5000
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (3, 32, 32) of bytes with labels 0 … 9.

        Raises:
            DataError: if a file is broken, or cannot be had.
        """
        self.require()
        train, test = map(self._images, SUMS)
        return Source(train, validation=None, test=test, support="levels256")

    def _images(self, file: str) -> Images:
        from scipy.io import loadmat

        try:
            content = loadmat(self.folder / file, variable_names=("X", "y"))
            values = np.ascontiguousarray(content["X"].astype(np.uint8, copy=False).transpose(3, 2, 0, 1))
            return Images(values, content["y"].ravel().astype(np.int64) % 10)  # the file calls a zero 10
        except Exception as error:  # scipy raises many kinds for a broken file
            raise self.broken(file, error) from error
