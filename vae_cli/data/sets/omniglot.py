"""Omniglot: characters of fifty alphabets."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from vae_cli.data.base import Source
from vae_cli.data.images import Images
from vae_cli.data.sets.archived import Archived
from vae_cli.data.sources.decoded import Pictures, decoded, fingerprint
from vae_cli.data.sources.pictures import square
from vae_cli.system.cache import cache_dir

TRAIN, TEST = "images_background", "images_evaluation"


class Omniglot(Archived):
    """32,460 handwritten characters, white on black, 20 of each of 1,623: 964 characters for training, 659 for the
    test.

    Read out of `data_dir/omniglot-py/images_background.zip` and `images_evaluation.zip`, resized, and kept decoded.
    The 28x28 pixels of the importance weighted autoencoder are resized otherwise and split otherwise.

    Args:
        data_dir: where the archives are, or go; None is the user's cache directory.
        image_size: pixels a side, of 105.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        B. M. Lake, R. Salakhutdinov and J. B. Tenenbaum, Human-level concept learning through probabilistic
        program induction, Science 350, 2015.
    """

    name = "omniglot"
    original = "Omniglot"
    folder = "omniglot-py"
    sums = {f"{TRAIN}.zip": "68d2efa1b9178cc56df9314c21c6e718", f"{TEST}.zip": "6b91aef0f799c5bb55b94e3f2daec811"}

    def __init__(
        self,
        data_dir: str | None = None,
        image_size: int = 28,
        binarize: str = "dynamic",
        validation: int | None = 1000,
    ) -> None:
        super().__init__(data_dir, binarize, validation)
        self.image_size = image_size

    def address(self, original: Any, file: str) -> str:
        return f"{original.download_url_prefix}/{file}"

    def load(self) -> Source:
        """Images (1, image_size, image_size) of bytes; labels 0 … 963 for training and from 964 for the test.

        Raises:
            DataError: if an archive is broken, or cannot be had.
        """
        self.require()
        train, test = self._images(TRAIN, 0), None
        assert train.labels is not None
        test = self._images(TEST, int(train.labels.max()) + 1)
        return Source(train, validation=None, test=test, support="levels256")

    def _images(self, part: str, first_label: int) -> Images:
        file = f"{part}.zip"
        try:
            with zipfile.ZipFile(self.path(file)) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".png") and "__MACOSX" not in name)

                def open_(name: str) -> io.BufferedIOBase:
                    return io.BytesIO(archive.read(name))

                shape = (1, self.image_size, self.image_size)
                pictures = Pictures(names, open_, self._inverted, shape, fingerprint(self.sums[file], *shape))
                place = cache_dir() / "decoded" / f"{self.name}-{part}-{self.image_size}"
                found = decoded(pictures, place, str(self.path(file)), "delete it to have it fetched again")
        except (OSError, zipfile.BadZipFile) as error:
            raise self.broken(file, error) from error
        characters = [str(Path(name).parent) for name in names]
        numbers = {character: number for number, character in enumerate(dict.fromkeys(characters), first_label)}
        return Images(found.values, np.array([numbers[character] for character in characters], np.int64))

    def _inverted(self, file: io.BufferedIOBase) -> np.ndarray:
        return 255 - square(file, self.image_size, channels=1)
