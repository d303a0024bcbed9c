"""A small classifier of gray images by their labels, whose last hidden layer gives features."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from vae_cli import noise
from vae_cli.data import Split
from vae_cli.data.batches import pixels
from vae_cli.errors import ConfigError, describe
from vae_cli.runs import tensor_file
from vae_cli.runs.tensor_file import InvalidFile
from vae_cli.system.cache import cache_dir

RECIPE = 1  # to be raised with any change of the network or its training, so that no old file is taken for it
N_FEATURES = 64
WIDTH = 16
LARGEST_SIDE = 64  # pixels
BATCH, STEPS, MOST_EPOCHS = 128, 1500, 40
LEARNING_RATE, WEIGHT_DECAY = 4e-3, 1e-2
STANDARDIZED = 10_000  # training images at most whose features are standardized
SEED = 0  # whatever the evaluation's: its features are the same for all models


class Classifier(nn.Module):
    """Three convolutions, 64 features, and the logits of the labels.

    The features have mean 0 and variance 1 over the training images.

    Args:
        classes: number of labels.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, WIDTH, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(WIDTH, 2 * WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2, ceil_mode=True),
            nn.Conv2d(2 * WIDTH, 2 * WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(16 * 2 * WIDTH, N_FEATURES),
        )
        self.logits = nn.Linear(N_FEATURES, classes)
        self.register_buffer("mean", torch.zeros(N_FEATURES))
        self.register_buffer("std", torch.ones(N_FEATURES))

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 64"]:
        """Return the features of images."""
        return (self.convolutions(x) - self.mean) / self.std

    def classify(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b classes"]:
        """Return the logits of the labels."""
        return self.logits(self.convolutions(x).relu())


@dataclass(frozen=True)
class Trained:
    """A classifier, what its labels are of, and the part of held-out images that it labels rightly, if known."""

    network: Classifier
    data: str
    accuracy: float | None


def load_or_train(train: Split, test: Split, data: str, digest: str) -> Trained:
    """Return the classifier of a data set's labels from the cache, where it is put once it is trained.

    Args:
        train: images of one channel and their labels.
        test: held-out images, with labels or without.
        data: the set's name.
        digest: of the set and of what was made of its images.
    """
    name = re.sub(r"[^\w-]", "_", f"{data}-{digest}-{RECIPE}")
    path = cache_dir() / "features" / f"{name}.safetensors"
    try:
        if path.exists():
            return load(path)
    except ConfigError as error:
        print(f"note: {error}; it is trained again", file=sys.stderr)
    print(f"training a classifier of the labels of {data}, for features to compare images in: {path}", file=sys.stderr)
    trained = fit(train, test, data)
    facts = {"recipe": RECIPE, "classes": trained.network.logits.out_features, "data": data}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tensor_file.write(path, trained.network.state_dict(), {"classifier": facts | {"accuracy": trained.accuracy}})
    except OSError as error:
        print(f"note: {path} cannot be written ({describe(error)}): the classifier is not kept", file=sys.stderr)
    return trained


def load(path: Path) -> Trained:
    """Return the classifier in a file.

    Raises:
        ConfigError: if it is damaged, or holds something else.
    """
    try:
        tensors, texts = tensor_file.read(path)
        facts = texts["classifier"]
        if type(facts["classes"]) is not int:
            raise ValueError("its number of classes is no whole number")
        with torch.device("meta"):  # whatever number the file names takes no memory before the shapes are compared
            network = Classifier(facts["classes"])
        if (odd := tensor_file.mismatch(tensors, network)) is not None:
            raise ValueError(f"{odd[0]} is {odd[1]}")
        network.load_state_dict({name: value.clone() for name, value in tensors.items()}, assign=True)
        accuracy = facts["accuracy"]
        return Trained(network.eval(), str(facts["data"]), None if accuracy is None else float(accuracy))
    except OSError as error:
        raise ConfigError(f"features={path}: it cannot be read ({describe(error)})") from error
    except (InvalidFile, KeyError, TypeError, ValueError, RuntimeError) as error:
        what = "it is no classifier that vae-evaluate has trained, or it is damaged"
        raise ConfigError(f"features={path}: {what}; choose features=auto") from error


def fit(train: Split, test: Split, data: str) -> Trained:
    """Train a classifier: on the CPU, in one thread and from a fixed seed, so that it is the same on every device of a
    machine."""
    assert train.labels is not None
    labels = train.labels.cpu()
    classes = int(labels.max()) + 1
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(noise.key(SEED, "classifier"))
            network = Classifier(classes)
        with torch.enable_grad():
            _train(network, train, labels)
        _standardize(network, train.spread(STANDARDIZED))
        accuracy = None if test.labels is None else _accuracy(network, test)
    finally:
        torch.set_num_threads(threads)
    return Trained(network.eval(), data, accuracy)


def _train(network: Classifier, train: Split, labels: Int[Tensor, "n"]) -> None:
    steps = max(1, min(STEPS, MOST_EPOCHS * len(train) // BATCH))
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for step in tqdm(range(steps), desc="classifier", disable=None, leave=False):
        stream = noise.generator(SEED, "classifier", step)
        rows = torch.randint(len(train), (BATCH,), generator=stream)
        x = pixels(train, rows, torch.device("cpu"), stream)
        loss = F.cross_entropy(network.classify(x), labels[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()


@torch.no_grad()
def _standardize(network: Classifier, train: Split) -> None:
    features = torch.cat([network(x) for _, x in _chunks(train)])
    network.mean.copy_(features.mean(0))
    network.std.copy_(features.std(0).clamp(min=1e-6))  # of a feature that no image has


@torch.no_grad()
def _accuracy(network: Classifier, test: Split) -> float:
    assert test.labels is not None
    labels = test.labels.cpu()
    right = sum(int((network.classify(x).argmax(1) == labels[some]).sum()) for some, x in _chunks(test))
    return right / len(test)


def _chunks(split: Split) -> Iterator[tuple[slice, Tensor]]:
    for start in range(0, len(split), noise.BLOCK):
        some = slice(start, start + noise.BLOCK)
        yield some, pixels(split, some, torch.device("cpu"), noise.generator(SEED, "classifier images", start))
