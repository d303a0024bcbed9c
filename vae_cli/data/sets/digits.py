"""The digits that come with scikit-learn."""

from __future__ import annotations

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Dataset, Source
from vae_cli.data.images import Images

LEVELS = 16  # the brightest of the set's 17 gray levels


class Digits(Dataset):
    """1,797 handwritten digits of 8x8 pixels from scikit-learn's own files: no download, no network.

    The 17 gray levels are spread over the bytes 0 … 255, so the support is `levels256`. There is no official
    test split.

    References:
        E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning
        Repository, 1998.
    """

    name = "digits"

    def __init__(self, binarize: Binarize = "none", validation: Index | None = 200) -> None:
        super().__init__(binarize, validation)

    def load(self) -> Source:
        """Read 1,797 images (1, 8, 8) with labels 0 … 9."""
        from sklearn.datasets import load_digits

        bunch = load_digits()
        values = np.rint(bunch.images * 255 / LEVELS).astype(np.uint8)
        images = Images(values[:, None], bunch.target.astype(np.int64))
        return Source(images, validation=None, test=None, support="levels256")
