"""The part of `vae-evaluate` that compares what a model generates with held-out images."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vae_cli.build.options import choice
from vae_cli.build.trained import Trained
from vae_cli.data import Data, Split
from vae_cli.errors import ConfigError, counted
from vae_cli.evaluation import features, generation_scores
from vae_cli.evaluation.bounds import batch
from vae_cli.evaluation.features import Features
from vae_cli.evaluation.generation_scores import FEWEST, NEIGHBOURS, Reference
from vae_cli.evaluation.numbers import Number
from vae_cli.generation.samplers import AggregateSampler, MixtureSampler, Sampler, draw_pixels, generate_images
from vae_cli.inference.inputs import load_data
from vae_cli.models import Model

INCEPTION_NAMES = {"frechet_distance": "fid", "kernel_distance": "kid"}
COMPONENTS = 10  # of gmm, as vae-sample has them by default

Config = Mapping[str, Any]


@dataclass(frozen=True)
class Compared:
    """The images that are compared, and the features in which they are.

    Args:
        data: as the model takes them, for reconstructions and samplers.
        split: the scored images, of these.
        references: the same images as they are compared: before they were made binary, where images of p(x|z) are.
        train: as many training images likewise; None if the scored ones are among them.
        kind: what the images are, in words.
        features: of them.
        is_drawn: samples and reconstructions are draws from p(x|z), not the image that it stands for.
        is_other: these are other data than the training's.
    """

    data: Data
    split: Split
    references: Split
    train: Split | None
    kind: str
    features: Features
    is_drawn: bool
    is_other: bool


def prepare(loaded: Trained, data: Data, split: Split, config: Config, is_other: bool) -> Compared:
    """Return the images and the features to compare them in, before anything is computed that takes long.

    Raises:
        ConfigError: if the data are no images, or too few, or no features fit them.
        DataError: if the weights of the features cannot be downloaded.
    """
    if not loaded.facts.is_image:
        noun = counted(2, loaded.facts.noun).partition(" ")[2]
        raise ConfigError(f"generation=true compares images, and this model's data are {noun}; leave it out")
    count = min(len(split), config["limit"] or len(split))
    if count < FEWEST:
        raise ConfigError(f"generation=true needs at least {FEWEST} images, and these are {count}; take more")
    is_binary, binarize = loaded.facts.support == "binary", loaded.settings["dataset"].get("binarize", "none")
    is_drawn = config["draw"]
    if is_drawn is None:
        is_drawn = is_binary and binarize != "dynamic"
    is_gray = is_binary and binarize != "none" and not is_drawn
    shown = load_data(loaded, config, is_gray=True) if is_gray else data
    kind = "binary" if shown.facts.support == "binary" else "gray" if shown.facts.shape[0] == 1 else "color"
    made = f"{kind} by {binarize}" if kind == "binary" else kind
    used = _features(shown, made, config, is_other)
    references = getattr(shown, config["split"]).spread(count)
    is_floor = split is not data.train and not is_other
    train = shown.train.spread(count) if is_floor else None
    return Compared(data, split.spread(count), references, train, kind, used, is_drawn, is_other)


def _features(shown: Data, made: str, config: Config, is_other: bool) -> Features:
    if config["features"] == "auto" and is_other and shown.facts.shape[0] == 1:
        raise ConfigError(
            "features=auto: a classifier is trained on the labels of the training's data, and dataset.path= names "
            "others; name other features, such as features=FILE.safetensors of that classifier"
        )
    return features.find(config["features"], config["weights"], config["allow"], shown, made)


@torch.no_grad()
def scores(loaded: Trained, images: Compared, config: Config) -> dict[str, Any]:
    """Return the numbers of samples, of reconstructions, and of training images as what to expect at best."""
    seed, count, used = config["seed"], len(images.split), images.features
    sources = _sources(loaded, images, config)
    device = next(loaded.model.parameters()).device
    with tqdm(total=count * (1 + len(sources)), desc="generation", unit=" images", disable=None) as bar:

        def of(chunks: Iterator[Tensor]) -> Tensor:
            return used.extract(chunks, device, bar.update)

        reference = Reference(of(_as_they_are(loaded.model, images.references, seed)), seed)
        numbers = {name: _named(reference.compare(of(chunks())), used) for name, chunks in sources.items()}
    n_features = reference.features.shape[1]
    return {
        "features": used.facts(n_features),
        "n": count,
        "seed": seed,
        "drawn": images.is_drawn,
        "images": images.kind,
        "k": NEIGHBOURS,
        "biased": generation_scores.is_biased(count, n_features),
        "samples": {name: each for name, each in numbers.items() if name in config["samplers"]},
        **{name: each for name, each in numbers.items() if name not in config["samplers"]},
    }


def _named(numbers: dict[str, Number], used: Features) -> dict[str, Number]:
    return {INCEPTION_NAMES.get(name, name) if used.is_inception else name: each for name, each in numbers.items()}


def _sources(loaded: Trained, images: Compared, config: Config) -> dict[str, Callable[[], Iterator[Tensor]]]:
    """Return what is compared by its name: functions that yield chunks of images."""
    model, seed, train = loaded.model, config["seed"], images.data.train
    labels = images.split.labels if model.classes else None

    def samples(name: str) -> Iterator[Tensor]:
        return generate_images(_sampler(name, model, seed, train), len(images.split), images.is_drawn, labels)

    sources: dict[str, Callable[[], Iterator[Tensor]]] = {}
    for name in config["samplers"]:
        if (reason := _reason_against(name, loaded, images)) is None:
            sources[name] = lambda name=name: samples(name)  # type: ignore[misc]
        else:
            _note(f"samplers: {name} is left out: {reason}")
    sources["reconstructions"] = lambda: _reconstructions(model, images, seed)
    if (floor := images.train) is not None:
        sources["train"] = lambda: _as_they_are(model, floor, seed)
    return sources


def _reason_against(name: str, loaded: Trained, images: Compared) -> str | None:
    """Return why a sampler is left out; None if it is not."""
    if name == "prior":
        return None
    if images.is_other:
        return "it needs the images of the training, and dataset.path= names others"
    if name == "gmm" and not loaded.model.is_flat:
        model = choice("model", loaded.settings["model"])
        return f"a mixture is of one latent vector, and model={model} is a hierarchy"
    needed, fewest, label = COMPONENTS if name == "gmm" else 1, *_fewest(loaded.model, images)
    return None if fewest >= needed else f"it needs {counted(needed, 'training image')}{label}, and there are {fewest}"


def _fewest(model: Model, images: Compared) -> tuple[int, str]:
    """Return how many training images there are, of a conditional model of the label that has the fewest, and what to
    say of that."""
    train, labels = images.data.train, images.split.labels
    if not model.classes or labels is None or train.labels is None:
        return len(train), ""
    counts = train.labels.cpu().bincount(minlength=model.classes)
    return int(counts[labels.cpu().unique()].min()), " of each label"


def _sampler(name: str, model: Model, seed: int, train: Split) -> Sampler:
    if name == "prior":
        return Sampler(model, seed)
    if name == "aggregate":
        return AggregateSampler(model, seed, train)
    return MixtureSampler(model, seed, train, COMPONENTS)


def _as_they_are(model: Model, split: Split, seed: int) -> Iterator[Tensor]:
    for start in range(0, len(split), features.TOGETHER):
        yield batch(model, split, slice(start, start + features.TOGETHER), seed)[0]


def _reconstructions(model: Model, images: Compared, seed: int) -> Iterator[Tensor]:
    for start in range(0, len(images.split), features.TOGETHER):
        x, y = batch(model, images.split, slice(start, start + features.TOGETHER), seed)
        p = model.reconstruct(x, y)
        is_drawn = images.is_drawn
        yield draw_pixels(p, x.device, seed, "reconstructions", start) if is_drawn else model.likelihood.image(p)


def _note(text: str) -> None:
    print(f"note: {text}", file=sys.stderr, flush=True)
