"""Pictures of a model: samples, reconstructions and walks through its latent space."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vae_cli import noise
from vae_cli.data.base import label_name
from vae_cli.generation import level_walks, walks
from vae_cli.generation.samplers import CHUNK, Sampler, class_labels, generate_images
from vae_cli.generation.walks import Walk
from vae_cli.models import Hierarchy, Model
from vae_cli.reporting import grids

IMAGES, ROWS, STEPS, SIDE = CHUNK, 8, 11, 20  # of a grid, a walk and a manifold, by default
DRAWS, ANEW = 3, 3  # side by side in a picture of levels, and images beside each
MOST_ROWS = 12  # of it


@torch.no_grad()
def sample_grid(model: Model, seed: int, names: Sequence[str] = ()) -> Image.Image:
    """Return a grid of the images of p(x|z) for z from the prior; of a conditional model with a row for each label."""
    y = class_labels(model.classes, in_whole_rows(IMAGES, model.classes))
    images = torch.cat(list(generate_images(Sampler(model, seed), IMAGES if y is None else len(y), y=y)))
    return labeled_grid(images, y, names)


@torch.no_grad()
def reconstruction_grid(model: Model, x: Float[Tensor, "n c h w"], y: Int[Tensor, "n"] | None = None) -> Image.Image:
    """Return a grid of images, each above its reconstruction: the image of p(x|z) at the mean of q(z|x)."""
    return grids.pairs(x, model.likelihood.image(model.reconstruct(x, y)))


@torch.no_grad()
def traversal_picture(model: Model, means: Float[Tensor, "n d"], steps: int = STEPS) -> Image.Image:
    """Return a grid with a row for each of the 20 most active latent dimensions, of a hierarchy those of its top level,
    of the label 0 if there are labels.

    Args:
        model: a trained model.
        means: of q(z|x) for N images, by which a dimension's activity is judged, as `relative_means` gives them.
        steps: images in a row.
    """
    top = None if model.is_flat else [*model.level_sizes][-1]
    walk = walks.traverse(model, means, steps, grids.TRAVERSED_DIMENSIONS, level=top)
    return walk_picture(walk, torch.cat(list(walk.images(model))))


@torch.no_grad()
def levels_picture(model: Hierarchy, seed: int, label: int = 0) -> Image.Image:
    """Return a grid that shows what the levels do: three draws from the prior side by side, each with three more whose
    upper levels are the same, from none of them in the first row to all but z1 in the last.

    Args:
        model: a trained hierarchy.
        seed: of the draws.
        label: of all images, of a conditional model.
    """
    device = next(model.parameters()).device
    y = torch.full((DRAWS,), label, device=device) if model.classes else None
    drawn, again = (
        noise.by_image(number, 1, model.prior_noise_dim, seed, name)[0].to(device)
        for number, name in ((DRAWS, "levels"), (DRAWS * ANEW, "lower levels"))
    )
    firsts = [f"draw {number + 1}" for number in range(DRAWS)]
    z = model.sample_latents(drawn, y=y)
    walk = level_walks.redraw(model, z, again.unflatten(0, (DRAWS, ANEW)), firsts, MOST_ROWS, label)
    return walk_picture(walk, torch.cat(list(walk.images(model))))


def walk_picture(
    walk: Walk, images: Float[Tensor, "rs c h w"], ends: Float[Tensor, "r 2 c h w"] | None = None
) -> Image.Image:
    """Return a walk's images in their rows with captions, each row between the two images of its `ends`, if given."""
    columns, shown = walk.columns, images.unflatten(0, walk.z.shape[:2])
    if ends is not None:
        shown, columns = torch.cat([ends[:, :1], shown, ends[:, 1:]], dim=1), ["from", *columns, "to"]
    return grids.captioned(shown.flatten(0, 1), walk.rows, columns, shown.shape[1], walk.axis)


def in_whole_rows(count: int, classes: int) -> int:
    """Return a number of images, or the next larger one with which every label fills whole rows of a grid."""
    if count < classes or classes < 2:
        return count
    rows = _rows_of_a_label(count, classes)
    return rows * classes * math.ceil(count / (rows * classes))


def _rows_of_a_label(count: int, classes: int) -> int:
    """Return how many rows each label has in a grid that is about as wide as high."""
    return max(1, round(math.sqrt(count) / classes))


def labeled_grid(
    images: Float[Tensor, "n c h w"], y: Int[Tensor, "n"] | None, names: Sequence[str] = ()
) -> Image.Image:
    """Return a grid of images; where several labels take turns and have equal shares, each with rows of its own.

    Args:
        images: the labels' in turn.
        y: the labels, if there are any.
        names: of the labels from 0 on; the others go by their numbers.
    """
    labels = [] if y is None else list(dict.fromkeys(y.tolist()))
    each, rest = divmod(len(images), max(1, len(labels)))
    if len(labels) < 2 or each < 2 or rest:
        return grids.grid(images)
    rows = _rows_of_a_label(len(images), len(labels))
    rows = rows if each % rows == 0 else 1
    ordered = images.unflatten(0, (each, len(labels))).transpose(0, 1).flatten(0, 1)
    captions = [name for label in labels for name in (label_name(label, names), *[""] * (rows - 1))]
    return grids.captioned(ordered, captions, [], each // rows)
