"""Pieces that the networks share: activations by name, normalization per example, sizes under halving."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vae_cli.errors import ConfigError

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
    "tanh": nn.Tanh,
}

Shape = tuple[int, int, int]


def activation_layer(name: str) -> nn.Module:
    """A new activation module.

    Raises:
        ConfigError: for a name that is not one of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise ConfigError(f"activation={name} is none of {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]()


def group_norm(channels: int) -> nn.GroupNorm:
    """Normalization over groups of up to 8 channels of one example: no example sees its neighbours."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


def halved(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """The sizes before and after each of `times` stride-2 convolutions, which round up."""
    sizes = [(height, width)]
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


@torch.no_grad()
def set_bias_to(layer: nn.Linear | nn.Conv2d | nn.ConvTranspose2d, output: Tensor) -> None:
    """Let a last layer start at `output` (C, H, W): per value in a linear layer, per channel in a convolution."""
    assert layer.bias is not None
    layer.bias.copy_(output.flatten() if isinstance(layer, nn.Linear) else output.mean((1, 2)))
