"""Omniglot: characters of fifty alphabets."""

from __future__ import annotations

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np

from vae_cli.constraints import ImageSize, Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.decoded import Pictures, decode, fingerprint
from vae_cli.data.download import RemoteFile
from vae_cli.data.images import Images
from vae_cli.data.pictures import Prepared, square
from vae_cli.data.sets.downloaded import DELETE, DownloadedDataset
from vae_cli.system.cache import cache_dir

TRAIN, TEST = "images_background", "images_evaluation"
SUMS = {TRAIN: "68d2efa1b9178cc56df9314c21c6e718", TEST: "6b91aef0f799c5bb55b94e3f2daec811"}
MIRROR = "https://raw.githubusercontent.com/brendenlake/omniglot/master/python"


class Omniglot(DownloadedDataset):
    """32,460 handwritten characters, white on black, 20 of each of 1,623: 964 characters for training, 659 for the
    test.

    Read out of `data_dir/omniglot-py/images_background.zip` and `images_evaluation.zip`, resized, and kept decoded.
    The 28x28 pixels of the importance weighted autoencoder are resized otherwise and split otherwise: they are
    `OmniglotBurda`.

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
    subfolder = "omniglot-py"
    files = tuple(RemoteFile(f"{part}.zip", f"md5:{md5}", (f"{MIRROR}/{part}.zip",)) for part, md5 in SUMS.items())

    def __init__(
        self,
        data_dir: str | None = None,
        image_size: ImageSize = 28,
        binarize: Binarize = "dynamic",
        validation: Index | None = 1000,
    ) -> None:
        super().__init__(data_dir, binarize, validation)
        self.image_size = image_size

    def load(self) -> Source:
        """Read images (1, image_size, image_size) of bytes; labels 0 … 963 for training and from 964 for the test.

        Raises:
            DataError: if an archive is broken, or cannot be had.
        """
        self.require()
        train = self._images(TRAIN, 0)
        assert train.labels is not None
        test = self._images(TEST, int(train.labels.max()) + 1)
        return Source(train, validation=None, test=test, support="levels256")

    def _images(self, part: str, first_label: int) -> Images:
        """Decode an archive; its characters are numbered from `first_label` on."""
        file = f"{part}.zip"
        try:
            with zipfile.ZipFile(self.folder / file) as archive:
                names = sorted(name for name in archive.namelist() if name.endswith(".png") and "__MACOSX" not in name)
                shape = (1, self.image_size, self.image_size)
                pictures = Pictures(
                    names,
                    open=lambda name: io.BytesIO(archive.read(name)),
                    prepare=lambda file: _bright_on_dark(square(file, self.image_size, channels=1)),
                    shape=shape,
                    fingerprint=fingerprint(self.digest(file), *shape),
                )
                cache = cache_dir() / "decoded" / f"{self.name}-{part}-{self.image_size}"
                decoded = decode(pictures, cache, str(self.folder / file), DELETE)
        except (OSError, zipfile.BadZipFile) as error:
            raise self.broken(file, error) from error
        characters = [str(Path(name).parent) for name in names]
        numbers = {character: number for number, character in enumerate(dict.fromkeys(characters), first_label)}
        return Images(decoded.values, np.array([numbers[character] for character in characters], np.int64))


def _bright_on_dark(drawing: Prepared) -> Prepared:
    """Return a drawing with black and white exchanged."""
    return replace(drawing, values=255 - drawing.values)
