"""Omniglot as the papers on variational autoencoders have it: gray images of 28x28, in one MATLAB file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Float32

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DownloadedDataset

FILE = "chardata.mat"
MIRROR = "https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT"
SIDE = 28


class OmniglotBurda(DownloadedDataset):
    """32,415 handwritten characters of 28x28 gray values, white on black: 24,345 for training, 8,070 for the test.

    The file `chardata.mat` of the importance weighted autoencoder's authors, in whose split the papers give log p(x).
    Gray values are floats in [0, 1], and the probability of a one in dynamic binarization. A label is one of fifty
    alphabets. An image's 784 values are column by column, as MATLAB has them; they are turned here, so that the
    characters stand upright.

    The papers hold 1,345 training images out after a shuffle, each by a seed of its own: so does this set, at places
    that are the same in every run, but are not theirs.

    Read from `data_dir/OMNIGLOT/chardata.mat`. The authors publish no checksum. The MD5 here is that of the example
    data sets of tfsnippet, which download the same address.

    Args:
        data_dir: where the file is, or goes; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        Y. Burda, R. Grosse and R. Salakhutdinov, Importance Weighted Autoencoders, ICLR 2016, arXiv:1509.00519.
        B. M. Lake, R. Salakhutdinov and J. B. Tenenbaum, Human-level concept learning through probabilistic
        program induction, Science 350, 2015.
    """

    name = "omniglot_burda"
    subfolder = "OMNIGLOT"
    files = (RemoteFile(FILE, "md5:21ecaf34373511aa7691cf2e0802aa3d", (f"{MIRROR}/{FILE}",)),)

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "dynamic", validation: Index | None = 1345
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 28, 28) of floats in [0, 1] with labels 0 … 49.

        Raises:
            DataError: if the file is broken or holds other values, or cannot be had.
        """
        from scipy.io import loadmat

        self.require()
        with self.reading(FILE):
            content = loadmat(self.folder / FILE, variable_names=("data", "target", "testdata", "testtarget"))
            train, test = _images(content, "data", "target"), _images(content, "testdata", "testtarget")
        return Source(train, validation=None, test=test, support="unit")


def _images(content: Mapping[str, Any], data: str, target: str) -> Images:
    """Return a split of the file, with the row of its one in `target` (alphabets, N) as the label of an image.

    Raises:
        ValueError: if these are no images in [0, 1] with an alphabet each.
    """
    columns, alphabets = content[data], content[target]
    if columns.ndim != 2 or len(columns) != SIDE * SIDE or alphabets.shape[1:] != columns.shape[1:]:
        raise ValueError(f"its arrays {data} and {target} are {columns.shape} and {alphabets.shape}")
    values = columns.T.astype(np.float32).reshape(-1, 1, SIDE, SIDE)
    if not (values.size and values.min() >= 0 and values.max() <= 1):  # NaN is neither
        raise ValueError(f"its array {data} has other values than those in [0, 1]")
    return Images(_upright(values), alphabets.argmax(0).astype(np.int64))


def _upright(values: Float32[np.ndarray, "N 1 W H"]) -> Float32[np.ndarray, "N 1 H W"]:
    return np.ascontiguousarray(values.swapaxes(2, 3))
