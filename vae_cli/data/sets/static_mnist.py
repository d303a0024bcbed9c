"""Static MNIST, binarized once and for all: in one numpy file or three text files, found or downloaded."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile, download
from vae_cli.data.images import Images
from vae_cli.data.sets.downloaded import DELETE, DownloadedDataset, exists
from vae_cli.errors import DataError, describe

PUBLISHED = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
ARRAYS = "binarized_mnist.npz"
SHAPE = (1, 28, 28)
PIXELS = 784
HEADER = 4096  # bytes, more than numpy and zip put before or after an array


@dataclass(frozen=True)
class Part:
    """The published images of a split.

    Args:
        count: of images.
        pixels: SHA-256 of the pixels, one byte each, row by row.
        text: SHA-256 of the published text file.
    """

    count: int
    pixels: str
    text: str


PARTS = {
    "train": Part(
        50_000,
        "43490d4d6ac9002727af4426d8748609fdb7e4094fa65ad8d681ea60082a7a5a",
        "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    ),
    "valid": Part(
        10_000,
        "069b4f0beb389b776478c3e872b4df71c95ac4be64d7cbe6d32e24ebac8e6d5e",
        "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    ),
    "test": Part(
        10_000,
        "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86",
        "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
    ),
}


class StaticMNIST(DownloadedDataset):
    """70,000 handwritten digits of 28x28 zeros and ones without labels: 50,000 for training, 10,000 for validation,
    10,000 for the test.

    MNIST with every pixel drawn once, with its gray value as the probability of a one, and published, so that
    everyone's log-likelihoods are of the same images. Their order is not MNIST's.

    Read from arrays `train`, `valid` and `test` in `data_dir/binarized_mnist.npz`, else from
    `data_dir/BinarizedMNIST/binarized_mnist_train.amat`, `…_valid.amat` and `…_test.amat`; those that are missing
    come from where they were published. The pixels must have their checksums.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`; the values are binary already, and it changes nothing.
        validation: None uses the set's own 10,000 images; 0 trains on them too and selects nothing.

    References:
        H. Larochelle and I. Murray, The Neural Autoregressive Distribution Estimator, AISTATS 2011.
        R. Salakhutdinov and I. Murray, On the quantitative analysis of deep belief networks, ICML 2008.
    """

    name = "static_mnist"
    subfolder = "BinarizedMNIST"

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = None
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 28, 28) of zeros and ones, uint8, downloaded if they have to be.

        Raises:
            DataError: if a file is broken or holds other pixels, `data_dir` cannot be read or written, or the files
                cannot be had; then it says what was tried and where to put them by hand.
        """
        arrays = self.data_dir / ARRAYS
        if exists(arrays):
            with _file_errors(arrays):
                _check_size(arrays, sum(part.count for part in PARTS.values()) * PIXELS + len(PARTS) * HEADER)
                with zipfile.ZipFile(arrays) as archive:
                    values = [_read_array(archive, split) for split in PARTS]
        else:
            self.require()
            values = []
            for split in PARTS:
                path = self.folder / _file(split)
                with _file_errors(path):
                    values.append(_read_lines(path, split))
        train, validation, test = map(Images, values)
        return Source(train, validation, test, support="binary")

    def require(self) -> None:
        # A file that is there is not replaced, whatever is in it.
        remote = {_file(split): f"sha256:{part.text}" for split, part in PARTS.items()}
        missing = [
            RemoteFile(file, checksum, (f"{PUBLISHED}/{file}",))
            for file, checksum in remote.items()
            if not exists(self.folder / file)
        ]
        download(self.name, self.folder, missing, f", or put {ARRAYS} into {self.data_dir}")


def _file(split: str) -> str:
    return f"binarized_mnist_{split}.amat"


@contextmanager
def _file_errors(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with a file into an error that names it and the fix."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a broken file
        raise DataError(f"{path} does not hold the published images ({describe(error)}); {DELETE}") from error


def _check_size(path: Path, most: int) -> None:
    """Raise ValueError for a path that is no file, or for a file that is too large, before anything is read."""
    if not path.is_file():
        raise ValueError("it is not a file")
    if (size := path.stat().st_size) > most:
        raise ValueError(f"it has {size} bytes, and they have {most} at most")


def _read_array(archive: zipfile.ZipFile, split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """Read a split out of an open .npz file; zipfile unpacks no more than the archive says that there is."""
    count, name = PARTS[split].count, f"{split}.npy"
    if name not in archive.namelist():
        raise ValueError(f"it has no array {split}")
    if archive.getinfo(name).file_size > count * PIXELS + HEADER:
        raise ValueError(f"its array {split} is larger than {count} images")
    with archive.open(name) as file:
        values = np.lib.format.read_array(file)
    if values.dtype != np.uint8 or values.shape != (count, *SHAPE):
        raise ValueError(f"its array {split} is {values.dtype} {values.shape}, not uint8 {(count, *SHAPE)}")
    return _check_pixels(np.ascontiguousarray(values), split)


def _read_lines(path: Path, split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """Read a split from a file with one line for each image.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds anything else.
    """
    count, number = PARTS[split].count, 0
    _check_size(path, count * (2 * PIXELS + 2))  # with lines that end in a space, or as Windows ends them
    values = np.empty((count, PIXELS), np.uint8)
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if number > count:
                raise ValueError(f"it has more than {count} lines")
            values[number - 1] = np.frombuffer(_digits(line, number), np.uint8)
    if number < count:
        raise ValueError(f"it has {number} lines, not {count}")
    values -= ord("0")
    return _check_pixels(values.reshape(count, *SHAPE), split)


def _digits(line: bytes, number: int) -> bytes:
    """Return a line without its spaces, if it has 784 zeros and ones."""
    text = line.rstrip()
    digits, between = text[::2], text[1::2]
    if len(digits) != PIXELS or digits.translate(None, b"01") or between.translate(None, b" "):
        raise ValueError(f"line {number} is not {PIXELS} zeros and ones with spaces between them")
    return digits


def _check_pixels(values: UInt8[np.ndarray, "N 1 28 28"], split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """Return the pixels, if they are the published ones."""
    digest, published = hashlib.sha256(values.data).hexdigest(), PARTS[split].pixels
    if digest != published:
        raise ValueError(f"the {split} pixels have SHA-256 {digest}, not {published}")
    return values
