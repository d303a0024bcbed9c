"""The data sets that `dataset=` chooses from, and what they turn into."""

from vae_cli.data.base import Data, DataFacts, Dataset, Source
from vae_cli.data.images import Images, Split
from vae_cli.data.sets.caltech101_silhouettes import Caltech101Silhouettes
from vae_cli.data.sets.cars3d import Cars3D
from vae_cli.data.sets.celeba import CelebA
from vae_cli.data.sets.cifar10 import CIFAR10
from vae_cli.data.sets.digits import Digits
from vae_cli.data.sets.dsprites import DSprites
from vae_cli.data.sets.emnist import EMNIST
from vae_cli.data.sets.mnist import KMNIST, MNIST, FashionMNIST
from vae_cli.data.sets.omniglot import Omniglot
from vae_cli.data.sets.omniglot_burda import OmniglotBurda
from vae_cli.data.sets.shapes3d import Shapes3D
from vae_cli.data.sets.smallnorb import SmallNORB
from vae_cli.data.sets.sprites import Sprites
from vae_cli.data.sets.static_mnist import StaticMNIST
from vae_cli.data.sets.svhn import SVHN
from vae_cli.data.sources.anndata import AnnData
from vae_cli.data.sources.arrays import Arrays, InMemory
from vae_cli.data.sources.folder import Folder
from vae_cli.data.sources.table import Frame, Table

__all__ = [
    "CIFAR10",
    "EMNIST",
    "KMNIST",
    "MNIST",
    "SVHN",
    "AnnData",
    "Arrays",
    "Caltech101Silhouettes",
    "Cars3D",
    "CelebA",
    "DSprites",
    "Data",
    "DataFacts",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Folder",
    "Images",
    "Frame",
    "InMemory",
    "Omniglot",
    "OmniglotBurda",
    "Shapes3D",
    "SmallNORB",
    "Source",
    "Split",
    "Sprites",
    "StaticMNIST",
    "Table",
]
