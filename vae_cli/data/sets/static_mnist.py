"""Static MNIST, binarized once and for all: in one numpy file or three text files, found or fetched."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import urlopen

import numpy as np
from jaxtyping import UInt8

from vae_cli.data.base import Dataset, Source
from vae_cli.data.download import mirrors
from vae_cli.data.download.fetch import FetchError, Route, fetch
from vae_cli.data.images import CHUNK, Images
from vae_cli.errors import DataError, describe
from vae_cli.system.cache import cache_dir

PUBLISHED = "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"
ARRAYS = "binarized_mnist.npz"
FOLDER = "BinarizedMNIST"
SHAPE = (1, 28, 28)
PIXELS = 784
HEADER = 4096  # bytes, more than numpy and zip put before or after an array


@dataclass(frozen=True)
class Part:
    """What a split is known by.

    Args:
        count: its images.
        sha256: of their pixels, one byte each, row by row.
    """

    count: int
    sha256: str


PARTS = {
    "train": Part(50_000, "43490d4d6ac9002727af4426d8748609fdb7e4094fa65ad8d681ea60082a7a5a"),
    "valid": Part(10_000, "069b4f0beb389b776478c3e872b4df71c95ac4be64d7cbe6d32e24ebac8e6d5e"),
    "test": Part(10_000, "ca0294c3b8d984c7a1dc891015a8eea6f37bae59a34e35ea0fc8c47110a8dd86"),
}


class StaticMNIST(Dataset):
    """70,000 handwritten digits of 28x28 zeros and ones without labels: 50,000 for training, 10,000 for validation,
    10,000 for the test.

    MNIST with every pixel drawn once, with its gray value as the probability of a one, and published, so that
    everyone's log-likelihoods are of the same images. Their order is not MNIST's.

    Read from arrays `train`, `valid` and `test` in `data_dir/binarized_mnist.npz`, else from
    `data_dir/BinarizedMNIST/binarized_mnist_train.amat`, `…_valid.amat` and `…_test.amat`; those that are missing
    come from where they were published. Pixels are held against their checksums.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`; the values are binary already, and it changes nothing.
        validation: None uses the set's own 10,000 images; 0 trains on them too and selects nothing.

    References:
        H. Larochelle and I. Murray, The Neural Autoregressive Distribution Estimator, AISTATS 2011.
        R. Salakhutdinov and I. Murray, On the quantitative analysis of deep belief networks, ICML 2008.
    """

    name = "static_mnist"

    def __init__(self, data_dir: str | None = None, binarize: str = "none", validation: int | None = None) -> None:
        super().__init__(binarize, validation)
        self.data_dir = Path(data_dir).expanduser() if data_dir else cache_dir()

    @property
    def folder(self) -> Path:
        """The directory of the three text files."""
        return self.data_dir / FOLDER

    def load(self) -> Source:
        """Images (1, 28, 28) of zeros and ones, uint8, downloaded if they have to be.

        Raises:
            DataError: if a file is broken or holds other pixels, `data_dir` cannot be read or written, or the files
                cannot be had; then it says what was tried and where to put them by hand.
        """
        if _exists(self.data_dir / ARRAYS):
            found = self._from_arrays()
        else:
            self._fetch([split for split in PARTS if not _exists(self.folder / _file(split))])
            found = {split: self._from_text(split) for split in PARTS}
        train, validation, test = (Images(values) for values in found.values())
        return Source(train, validation, test, support="binary")

    def _from_arrays(self) -> dict[str, np.ndarray]:
        with _refused(path := self.data_dir / ARRAYS):
            _check_size(path, sum(part.count for part in PARTS.values()) * PIXELS + len(PARTS) * HEADER)
            with zipfile.ZipFile(path) as archive:
                return {split: _array(archive, split) for split in PARTS}

    def _from_text(self, split: str) -> np.ndarray:
        with _refused(path := self.folder / _file(split)):
            return _text(path, split)

    def _fetch(self, splits: Sequence[str]) -> None:
        if not splits:
            return
        missing = [_file(split) for split in splits]
        mend = (
            f"put {', '.join(missing)} into {self.folder} by hand, or {ARRAYS} into {self.data_dir}, "
            "or name a directory that has one or the other with data_dir="
        )
        fetch(self.name, self.data_dir, FOLDER, missing, [published(splits)], mend)


def published(splits: Sequence[str]) -> Route:
    """The route to the text files of some splits where they were published, each held against its pixels' checksum."""
    return Route(urlsplit(PUBLISHED).netloc, lambda staging: {_file(split): _got(split, staging) for split in splits})


def _got(split: str, staging: Path) -> Path:
    path = staging / _file(split)
    try:
        _save(f"{PUBLISHED}/{path.name}", path, _most(split) + 1)
        _text(path, split)
    except (HTTPException, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in mirrors.LOCAL_ERRORS:
            raise
        why = mirrors.URL_ERROR.sub(r"\1", describe(error))
        raise FetchError(f"{path.name}: {why}") from error
    return path


def _save(address: str, path: Path, most: int) -> None:
    """No more than so many bytes of what is at an address."""
    with urlopen(address, timeout=mirrors.TIMEOUT) as answer, path.open("wb") as file:
        while chunk := answer.read(min(CHUNK, most - file.tell())):
            file.write(chunk)


def _file(split: str) -> str:
    return f"binarized_mnist_{split}.amat"


def _most(split: str) -> int:
    """Bytes of a text file whose lines end in a space, or as Windows ends them."""
    return PARTS[split].count * (2 * PIXELS + 2)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error


@contextmanager
def _refused(path: Path) -> Iterator[None]:
    """Name the file and the mend, whatever is wrong with it."""
    try:
        yield
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error
    except Exception as error:  # zipfile and numpy raise many kinds for a broken file
        raise DataError(
            f"{path} does not hold the published images ({describe(error)}); delete it to have them fetched again"
        ) from error


def _check_size(path: Path, most: int) -> None:
    """Refuse what is no file, or too large for one, before anything is read."""
    if not path.is_file():
        raise ValueError("it is not a file")
    if (size := path.stat().st_size) > most:
        raise ValueError(f"it has {size} bytes, and they have {most} at most")


def _array(archive: zipfile.ZipFile, split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """A split in an open .npz file; zipfile unpacks no more than it says that there is."""
    count, name = PARTS[split].count, f"{split}.npy"
    if name not in archive.namelist():
        raise ValueError(f"it has no array {split}")
    if archive.getinfo(name).file_size > count * PIXELS + HEADER:
        raise ValueError(f"its array {split} is larger than {count} images")
    with archive.open(name) as file:
        values = np.lib.format.read_array(file, allow_pickle=False)
    if values.dtype != np.uint8 or values.shape != (count, *SHAPE):
        raise ValueError(f"its array {split} is {values.dtype} {values.shape}, not uint8 {(count, *SHAPE)}")
    return _known(np.ascontiguousarray(values), split)


def _text(path: Path, split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """A split in a file of a line an image.

    Raises:
        OSError: if the file cannot be read.
        ValueError: if it holds anything else.
    """
    _check_size(path, _most(split))
    count, found = PARTS[split].count, 0
    values = np.empty((count, PIXELS), np.uint8)
    with path.open("rb") as file:
        for found, line in enumerate(file, 1):
            if found > count:
                raise ValueError(f"it has more than {count} lines")
            values[found - 1] = np.frombuffer(_digits(line, found), np.uint8)
    if found < count:
        raise ValueError(f"it has {found} lines, not {count}")
    values -= ord("0")
    return _known(values.reshape(count, *SHAPE), split)


def _digits(line: bytes, number: int) -> bytes:
    """A line without its spaces, if it has 784 zeros and ones."""
    text = line.rstrip()
    digits, between = text[::2], text[1::2]
    if len(digits) != PIXELS or digits.translate(None, b"01") or between.translate(None, b" "):
        raise ValueError(f"line {number} is not {PIXELS} zeros and ones with spaces between them")
    return digits


def _known(values: UInt8[np.ndarray, "N 1 28 28"], split: str) -> UInt8[np.ndarray, "N 1 28 28"]:
    """The pixels, if they are the published ones."""
    digest, known = hashlib.sha256(values.data).hexdigest(), PARTS[split].sha256
    if digest != known:
        raise ValueError(f"the {split} pixels have SHA-256 {digest}, not {known}")
    return values
