"""Hierarchies of vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from vae_cli.constraints import Channels, Count
from vae_cli.distributions import Likelihood, Prior
from vae_cli.errors import ConfigError
from vae_cli.models.hierarchy import Hierarchy
from vae_cli.models.preprocessing import Preprocessing
from vae_cli.networks.conditional import LabeledEncoder
from vae_cli.networks.layers import Activation
from vae_cli.networks.top_down import LadderEncoder, TopDownBlock, VectorOutput, changed_width


class Ladder(Hierarchy):
    """A hierarchy of vectors, for examples of any shape: fully connected layers only.

    Args:
        latents: dimensions of z1, the nearest to the data, up to those of the top.
        widths: of the layers of each level.
        activation: of all layers.
        depth: layers of each residual block, in the encoder and behind every z.
        relative: the posterior is given in units of the prior.
        shape: of an example.
        make_prior: from the dimensions of the top to p(z_L).
        likelihood: p(x|z).
        precision: of the products.
        classes: number of labels.
        preprocessing: of examples that are no images.

    Raises:
        ConfigError: if `latents` and `widths` have unlike lengths.
    """

    def __init__(
        self,
        latents: Channels,
        widths: Channels,
        shape: tuple[int, ...],
        make_prior: Callable[[int], Prior],
        likelihood: Likelihood,
        activation: Activation = "silu",
        depth: Count = 2,
        relative: bool = True,
        precision: torch.dtype = torch.float32,
        classes: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        if len(latents) != len(widths):
            raise ConfigError(
                f"model.latents has {len(latents)} entries and model.widths {len(widths)}: give both one for each level"
            )
        scale, last = 1 / math.sqrt(len(latents)), len(latents) - 1
        blocks = [
            TopDownBlock(
                width,
                (latent,),
                activation,
                depth,
                scale,
                None if number == last else changed_width(widths[number + 1], width),
                is_top=number == last,
                is_relative=relative,
            )
            for number, (latent, width) in enumerate(zip(latents, widths))
        ]
        seen = shape if preprocessing is None else preprocessing.seen_shape
        seen = (seen[0] + 1, *seen[1:]) if classes else seen
        encoder: nn.Module = LadderEncoder(seen, widths, activation, depth)
        encoder = LabeledEncoder(encoder, shape, classes) if classes else encoder
        decoder = VectorOutput(widths[0], likelihood.output_shape, activation)
        top = make_prior(latents[-1])
        super().__init__(
            encoder, blocks, decoder, top, likelihood, shape, widths[-1], precision, classes, preprocessing
        )
