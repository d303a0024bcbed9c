"""MNIST, Fashion-MNIST and KMNIST: four IDX files each, found or downloaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np

from vae_cli.constraints import Index
from vae_cli.data.base import Binarize, Source
from vae_cli.data.download import RemoteFile, download
from vae_cli.data.images import Images
from vae_cli.data.sets import idx
from vae_cli.data.sets.downloaded import DELETE, DownloadedDataset, exists
from vae_cli.errors import DataError

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
CLASSES = 10
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def _remote_files(*digests: str, mirrors: tuple[str, ...]) -> dict[str, RemoteFile]:
    """Return the four gzipped files by their names without `.gz`."""
    return {
        name: RemoteFile(f"{name}.gz", f"md5:{digest}", tuple(f"{mirror}/{name}.gz" for mirror in mirrors))
        for name, digest in zip(FILES, digests)
    }


class MNIST(DownloadedDataset):
    """70,000 handwritten digits of 28x28 bytes with labels: 60,000 for training, 10,000 for the test.

    The files are read where torchvision keeps them, `data_dir/MNIST/raw/`, gzipped or not; missing ones are
    downloaded.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, Gradient-Based Learning Applied to Document
        Recognition, Proceedings of the IEEE 86(11), 1998.
    """

    name = "mnist"
    subfolder = "MNIST/raw"
    remote: ClassVar[Mapping[str, RemoteFile]] = _remote_files(
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
        mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist", "http://yann.lecun.com/exdb/mnist"),
    )
    class_names: ClassVar[tuple[str, ...]] = ()
    advice: ClassVar[str] = ", or choose dataset=digits, which needs no network"

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "dynamic", validation: Index | None = 5000
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 28, 28) of bytes with labels 0 … 9, downloaded if they have to be.

        Raises:
            DataError: if a file is broken, `data_dir` cannot be written, or the files cannot be had; then it
                says what was tried and where to put them by hand.
        """
        self.require()
        return replace(_read(_find(self.folder), DELETE), class_names=self.class_names)

    def require(self) -> None:
        present = _find(self.folder)
        missing = [file for name, file in self.remote.items() if name not in present]
        download(self.name, self.folder, missing, self.advice)


class FashionMNIST(MNIST):
    """70,000 pictures of clothes of 28x28 bytes with labels, in MNIST's format and split.

    Read from `data_dir/FashionMNIST/raw/`, else from where Debian's package `dataset-fashion-mnist` puts
    them, else downloaded.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        H. Xiao, K. Rasul and R. Vollgraf, Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
        Learning Algorithms, 2017, arXiv:1708.07747.
    """

    name = "fashion_mnist"
    subfolder = "FashionMNIST/raw"
    remote = _remote_files(
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
        mirrors=("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com",),
    )
    class_names = (
        *("T-shirt/top", "trouser", "pullover", "dress", "coat"),
        *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
    )
    advice = f", install Debian's package dataset-fashion-mnist{MNIST.advice}"

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = 5000
    ) -> None:
        super().__init__(data_dir, binarize, validation)

    def load(self) -> Source:
        """Read images (1, 28, 28) of bytes with labels 0 … 9, downloaded if they have to be.

        Raises:
            DataError: as MNIST's.
        """
        debian = _find(DEBIAN_FASHION_MNIST)
        if len(_find(self.folder)) < len(FILES) and len(debian) == len(FILES):
            source = _read(debian, "reinstall Debian's package dataset-fashion-mnist")
            return replace(source, class_names=self.class_names)
        return super().load()


class KMNIST(MNIST):
    """70,000 cursive Japanese characters of 28x28 bytes with labels, in MNIST's format and split.

    Read from `data_dir/KMNIST/raw/`, else downloaded.

    Args:
        data_dir: where the files are, or go; None is the user's cache directory.
        binarize: see `Dataset`.
        validation: images held out of the training set.

    References:
        T. Clanuwat et al., Deep Learning for Classical Japanese Literature, 2018, arXiv:1812.01718.
    """

    name = "kmnist"
    subfolder = "KMNIST/raw"
    remote = _remote_files(
        "bdb82020997e1d708af4cf47b453dcf7",
        "e144d726b3acfaa3e44228e80efcd344",
        "5c965bf0a639b31b8f53240b1b52f4d7",
        "7320c461ea6c1c855c0b718fb2a4b134",
        mirrors=("http://codh.rois.ac.jp/kmnist/dataset/kmnist",),
    )

    def __init__(
        self, data_dir: str | None = None, binarize: Binarize = "none", validation: Index | None = 5000
    ) -> None:
        super().__init__(data_dir, binarize, validation)


def _find(folder: Path) -> dict[str, Path]:
    """Return those of the four files that exist, gzipped or not, by their names without `.gz`."""
    paths = {name: [path for path in (folder / name, folder / f"{name}.gz") if exists(path)] for name in FILES}
    return {name: present[0] for name, present in paths.items() if present}


def _read(files: dict[str, Path], fix: str) -> Source:
    train, test = (
        _images(files[f"{part}-images-idx3-ubyte"], files[f"{part}-labels-idx1-ubyte"], fix)
        for part in ("train", "t10k")
    )
    return Source(train, validation=None, test=test, support="levels256")


def _images(images: Path, labels: Path, fix: str) -> Images:
    values, classes = idx.read(images, 3, fix), idx.read(labels, 1, fix)
    if not len(values) or values.shape[1:] != (28, 28):
        size = "x".join(map(str, values.shape))
        raise DataError(f"{images} holds {size} values, not images of 28x28; {fix}")
    if len(values) != len(classes):
        raise DataError(f"{images} has {len(values)} images but {labels} has {len(classes)} labels; {fix}")
    if classes.max() >= CLASSES:
        raise DataError(f"{labels} has a label {classes.max()}, above {CLASSES - 1}; {fix}")
    return Images(values[:, None], classes.astype(np.int64))
