"""Hierarchies of feature maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import torch
from torch import nn

from vae_cli.constraints import Channels, Count, Described, Index, Length
from vae_cli.distributions import Likelihood, Prior
from vae_cli.errors import ConfigError
from vae_cli.models.hierarchy import Hierarchy
from vae_cli.models.preprocessing import Preprocessing
from vae_cli.networks.conditional import LabeledEncoder
from vae_cli.networks.layers import Activation, halved, image_shape
from vae_cli.networks.top_down import Enlarge, FromVector, MapEncoder, MapOutput, Residual, TopDownBlock, conv3

Counts = Annotated[Sequence[Index], Length(2), Described("a list of two or more integers of at least 0")]


class TopDown(Hierarchy):
    """A hierarchy of feature maps at several sizes, each half the one before, with a vector at the top.

    Each list has an entry for every size, from the largest to 1×1.

    Args:
        latents: channels of each z; of the last entry dimensions.
        channels: of the state and the encoder; of the last entry its width.
        blocks: levels of latent variables at each size; with 0 a size has deterministic layers only.
        stem: by how much the first convolution makes the image smaller; 1 puts the first maps at its full size.
        activation: of all layers.
        depth: residual blocks of the encoder at each size of the maps; the vector has one.
        relative: the posterior is given in units of the prior.
        shape: (C, H, W), of an example.
        make_prior: from the dimensions of the top to p(z_L).
        likelihood: p(x|z).
        precision: of the products.
        classes: number of labels.
        preprocessing: of examples that are no images.

    Raises:
        ConfigError: if the lists have unlike lengths, or the examples are no images or too small for so many sizes.
    """

    def __init__(
        self,
        latents: Channels,
        channels: Channels,
        blocks: Counts,
        shape: tuple[int, ...],
        make_prior: Callable[[int], Prior],
        likelihood: Likelihood,
        stem: Literal[1, 2] = 2,
        activation: Activation = "silu",
        depth: Count = 1,
        relative: bool = True,
        precision: torch.dtype = torch.float32,
        classes: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if len(shape) != 3:
            what = f"these examples have the shape {tuple(shape)}"
            raise ConfigError(f"feature maps need images (C, H, W), and {what}; choose model=ladder")
        _, height, width = image_shape(shape)
        if not len(latents) == len(channels) == len(blocks) >= 2:
            lengths = f"{len(latents)}, {len(channels)} and {len(blocks)}"
            raise ConfigError(
                f"model.latents, model.channels and model.blocks have {lengths} entries: give each one for every size, "
                "two or more, the last for the vector at the top"
            )
        if not blocks[-1]:
            raise ConfigError("model.blocks has 0 levels at the top: give it one or more")
        sizes = halved(height, width, len(channels) - 1)
        sizes = [*(sizes[1:] if stem == 2 else sizes[:-1]), (1, 1)]
        if min(sizes[-2]) < 2:
            most = _most_sizes(height, width, stem)
            what = f"images of {height}x{width} are too small for the {len(channels)} sizes of model.channels"
            raise ConfigError(f"{what}; give {most} at most" if most > 1 else f"{what}; choose model=ladder")
        scale = 1 / math.sqrt(sum(blocks))
        levels, below = _blocks(latents, channels, blocks, sizes, activation, scale, relative)
        seen = image_shape(shape if preprocessing is None else preprocessing.seen_shape)
        seen = (seen[0] + 1, height, width) if classes else seen
        encoder: nn.Module = MapEncoder(seen, channels, sizes, blocks, stem, activation, depth)
        encoder = LabeledEncoder(encoder, shape, classes) if classes else encoder
        decoder = MapOutput(channels[0], image_shape(likelihood.output_shape), stem, activation, scale, below)
        top = make_prior(latents[-1])
        super().__init__(
            encoder, levels, decoder, top, likelihood, shape, channels[-1], precision, classes, preprocessing
        )


def _most_sizes(height: int, width: int, stem: int) -> int:
    """Return how many sizes there can be, of which the maps have two rows and columns at least."""
    sizes = halved(height, width, 64)
    return 1 + sum(min(size) >= 2 for size in (sizes[1:] if stem == 2 else sizes))


def _blocks(
    latents: Sequence[int],
    channels: Sequence[int],
    blocks: Sequence[int],
    sizes: Sequence[tuple[int, int]],
    activation: Activation,
    scale: float,
    relative: bool,
) -> tuple[list[TopDownBlock], list[nn.Module]]:
    """Return the blocks, z1's first, and the layers below z1 where the largest maps have no levels."""
    built: list[TopDownBlock] = []
    enter: list[nn.Module] = []  # from the state of the block above
    last = len(blocks) - 1
    for number in reversed(range(len(blocks))):
        width, size = channels[number], sizes[number]
        shape = (latents[number],) if number == last else (latents[number], *size)
        if number == last - 1:
            enter.append(FromVector(channels[last], width, size))
        elif number < last:
            enter.append(Enlarge(channels[number + 1], width, size))
        if not blocks[number]:
            enter.append(Residual(width, conv3, activation, 2, scale))
        for _ in range(blocks[number]):
            entered = nn.Sequential(*enter) if enter else None
            built.insert(0, TopDownBlock(width, shape, activation, 2, scale, entered, not built, relative))
            enter = []
    return built, enter
