"""The data sets that `dataset=` chooses from, and what they turn into."""

from vae_cli.data.arrays import Arrays
from vae_cli.data.base import Data, DataFacts, Dataset, Source
from vae_cli.data.celeba import CelebA
from vae_cli.data.cifar10 import CIFAR10
from vae_cli.data.digits import Digits
from vae_cli.data.emnist import EMNIST
from vae_cli.data.folder import Folder
from vae_cli.data.images import Images, Split
from vae_cli.data.mnist import KMNIST, MNIST, FashionMNIST
from vae_cli.data.omniglot import Omniglot
from vae_cli.data.static_mnist import StaticMNIST
from vae_cli.data.svhn import SVHN

__all__ = [
    "CIFAR10",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "SVHN",
    "Arrays",
    "CelebA",
    "Data",
    "DataFacts",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Folder",
    "Images",
    "Omniglot",
    "Source",
    "Split",
    "StaticMNIST",
]
