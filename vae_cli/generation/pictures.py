"""Pictures of a model: samples, reconstructions and walks through its latent space."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vae_cli.generation import walks
from vae_cli.generation.samplers import CHUNK, Sampler, class_labels, generate_images
from vae_cli.generation.walks import Walk
from vae_cli.models.vae import VAE
from vae_cli.reporting import grids

WIDEST = 20  # labels that have a column each
IMAGES, ROWS, STEPS, SIDE = CHUNK, 8, 11, 20  # of a grid, a walk and a manifold, by default


@torch.no_grad()
def sample_grid(model: VAE, seed: int, count: int = IMAGES) -> Image.Image:
    """Return a grid of the mean of p(x|z) for z from the prior; of a conditional model every label in turn."""
    y = class_labels(model.classes, count)
    images = torch.cat(list(generate_images(Sampler(model, seed), count, y=y)))
    return grids.grid(images, label_columns(y))


@torch.no_grad()
def reconstruction_grid(model: VAE, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"] | None = None) -> Image.Image:
    """Return a grid of images, each above its reconstruction: the mean of p(x|z) at the mean of q(z|x)."""
    return grids.pairs(x, model.reconstruct(x, y).mean)


@torch.no_grad()
def traversal_picture(model: VAE, means: Float[Tensor, "n d"], steps: int = STEPS) -> Image.Image:
    """Return a grid with a row for each of the 20 most active latent dimensions, of the label 0 if there are labels.

    Args:
        model: a trained model.
        means: of q(z|x) for N images, by which a dimension's activity is judged.
        steps: images in a row.
    """
    walk = walks.traverse(model, means, steps, grids.TRAVERSED_DIMENSIONS)
    return walk_picture(walk, torch.cat(list(walk.images(model))))


def walk_picture(
    walk: Walk, images: Float[Tensor, "rs c h w"], ends: Float[Tensor, "r 2 c h w"] | None = None
) -> Image.Image:
    """Return a walk's images in their rows with captions, each row between the two images of its `ends`, if given."""
    columns, shown = walk.columns, images.unflatten(0, walk.z.shape[:2])
    if ends is not None:
        shown, columns = torch.cat([ends[:, :1], shown, ends[:, 1:]], dim=1), ["from", *columns, "to"]
    return grids.captioned(shown.flatten(0, 1), walk.rows, columns, shown.shape[1], walk.axis)


def label_columns(y: Int[Tensor, "n"] | None) -> int | None:
    """Return a grid's width: a column for each label if there are 2 to 20 of them, else None."""
    if y is None or bool((y == y[0]).all()):
        return None
    labels = int(y.max()) + 1
    return labels if labels <= WIDEST else None
