"""The data sets that `dataset=` chooses from, and what they turn into."""

from vae_cli.data.arrays import Arrays
from vae_cli.data.base import Data, DataFacts, Dataset, Images, Source, Split
from vae_cli.data.digits import Digits
from vae_cli.data.mnist import MNIST, FashionMNIST

__all__ = [
    "MNIST",
    "Arrays",
    "Data",
    "DataFacts",
    "Dataset",
    "Digits",
    "FashionMNIST",
    "Images",
    "Source",
    "Split",
]
