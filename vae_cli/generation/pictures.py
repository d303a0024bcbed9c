"""Pictures of a model."""

from __future__ import annotations

import torch
from PIL import Image
from torch import Tensor

from vae_cli.generation.walks import Walk
from vae_cli.reporting import grids

WIDEST = 20  # labels that have a column each
IMAGES, ROWS, STEPS, SIDE = 64, 8, 11, 20  # if nobody asks for more


def grid_columns(y: Tensor | None) -> int | None:
    """How wide a grid is: a column for each label, if there are several and not too many."""
    if y is None or not 1 < (known := int(y.max()) + 1) <= WIDEST or bool((y == y[0]).all()):
        return None
    return known


def walk_picture(walk: Walk, images: Tensor, ends: Tensor | None = None) -> Image.Image:
    """The images in their rows with captions; between the `ends` (R, 2, C, H, W) that they lead from and to."""
    heads, shown = walk.columns, images.unflatten(0, walk.z.shape[:2])
    if ends is not None:
        shown, heads = torch.cat([ends[:, :1], shown, ends[:, 1:]], dim=1), ["from", *heads, "to"]
    return grids.captioned(shown.flatten(0, 1), walk.rows, heads, shown.shape[1])
