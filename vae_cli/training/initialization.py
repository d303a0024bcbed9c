"""What a model starts from: seeded weights, an output at the mean image, pseudo-inputs at training images."""

from __future__ import annotations

import random

import numpy as np
import torch

from vae_cli.data import Split
from vae_cli.data.batches import moments, quartiles
from vae_cli.evaluation.bounds import reconstructions
from vae_cli.models import Model
from vae_cli.runs.directory import log

SCATTERED = 250  # training images whose reconstructions are compared with them before the first step


def seed_everything(seed: int) -> None:
    """Seed every stream that a network might draw from. The program itself draws from none of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@torch.no_grad()
def start_at_mean_image(model: Model, split: Split, seed: int) -> None:
    """Set the decoder's output bias to the mean training image, and the likelihood's scale to what then is left."""
    preprocessing = model.preprocessing
    mean, std = moments(split, is_centered=preprocessing is not None)
    if preprocessing is not None:
        mean, std = preprocessing.of_likelihood(mean, std)
    if not model.start_at(model.likelihood.start_at(mean, std)):
        decoder = getattr(model, "decoder", model)
        name = type(getattr(decoder, "network", decoder)).__name__
        log.info("decoder     %s has no start_at(output): its output bias stays as built", name)
        return
    if preprocessing is not None and not preprocessing.is_all_real:
        return
    # A decoder that is not trained yet scatters around the mean image, sometimes more widely than the images do.
    squares = torch.zeros_like(mean)
    for x, p in reconstructions(model.eval(), some := split.spread(SCATTERED), seed):
        error = model.likelihood.image(p) - x
        squares += (error if preprocessing is None else (error / preprocessing.scale).nan_to_num(0)).square().sum(0)
    model.start_at(model.likelihood.start_at(mean, torch.maximum(std, (squares / len(some)).sqrt())))
    model.train()


def start_at_training_images(model: Model, split: Split) -> None:
    """Set a prior that is made of images to training images, spread evenly over the set."""
    if count := model.prior.starting_images:
        index = torch.linspace(0, len(split) - 1, count, dtype=torch.float64).long()
        x, preprocessing = split.select(index).float() / split.scale, model.preprocessing
        model.prior.start_at(x if preprocessing is None else preprocessing.standardized(x).nan_to_num(0))


def standardize(model: Model, split: Split, how: str) -> None:
    """Give a model that standardizes real values the constants of the training examples.

    Args:
        model: not trained yet.
        split: the training examples.
        how: `zscore`, `robust` or `none`.
    """
    if model.preprocessing is None or how == "none":
        return
    center, scale = moments(split, is_centered=True) if how == "zscore" else quartiles(split)
    model.preprocessing.start_at(center, torch.where(scale > 0, scale, 1))
