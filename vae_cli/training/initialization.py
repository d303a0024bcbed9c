"""What a model starts from: seeded weights, an output at the mean image, pseudo-inputs at training images."""

from __future__ import annotations

import random

import numpy as np
import torch

from vae_cli.data import Split
from vae_cli.data.batches import SAMPLED, moments, quartiles
from vae_cli.distributions import CountLikelihood
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
        model.prior.start_at(x if preprocessing is None else preprocessing.filled(preprocessing.standardized(x)))


@torch.no_grad()
def measure(model: Model, split: Split, how: str) -> None:
    """Give a model of examples that are no images the constants of the training's: of standardized values, of what the
    encoder sees where a value is missing, and the usual total of counts.

    Args:
        model: not trained yet.
        split: the training examples.
        how: `zscore`, `robust` or `none`.
    """
    preprocessing, likelihood = model.preprocessing, model.likelihood
    if preprocessing is None:
        return
    mean, std = moments(split, is_centered=True)
    if how != "none":
        center, scale = (mean, std) if how == "zscore" else quartiles(split)
        scale = torch.where(scale > 0, scale, std)  # the quartiles of a column may be the same
        preprocessing.start_at(center, torch.where(scale > 0, scale, 1))
    if isinstance(likelihood, CountLikelihood):
        likelihood.set_total(mean.sum())
    total, count = (torch.zeros(split.shape, dtype=torch.float64) for _ in range(2))
    for chunk in split.chunks(every=1 + len(split) * split.image_bytes // SAMPLED):
        u = preprocessing.standardized(chunk.float().to(preprocessing.center) / split.scale).double().cpu()
        total, count = total + u.nan_to_num(0).sum(0), count + (~u.isnan()).sum(0)
    preprocessing.usual.copy_(total / count.clamp(min=1))
