"""Layers that the networks share: activations by name, normalization per example, sizes under halving."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from jaxtyping import Float
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

Activation = Literal["relu", "leaky_relu", "elu", "gelu", "silu", "softplus", "tanh"]
Shape = tuple[int, ...]  # of an example: (C, H, W), (C, L), (D,) …


def image_shape(shape: Shape) -> tuple[int, int, int]:
    """Return (C, H, W).

    Raises:
        ConfigError: for the shape of something else than images.
    """
    if len(shape) != 3:
        raise ConfigError(
            f"convolutional networks need images (C, H, W), and these examples have the shape {tuple(shape)}; choose "
            "encoder=mlp decoder=mlp"
        )
    channels, height, width = shape
    return channels, height, width


def group_norm(channels: int) -> nn.GroupNorm:
    """Return a normalization over groups of up to 8 channels of one example, so that no example sees its neighbours."""
    return nn.GroupNorm(math.gcd(channels, max(1, channels // 8)), channels)


def halved(height: int, width: int, times: int) -> list[tuple[int, int]]:
    """Return the sizes before and after each of `times` stride-2 convolutions, which round up."""
    sizes = [(height, width)]
    for _ in range(times):
        height, width = (height + 1) // 2, (width + 1) // 2
        sizes.append((height, width))
    return sizes


def doubling(before: int, after: int, small: tuple[int, int], large: tuple[int, int]) -> nn.ConvTranspose2d:
    """Return a 3×3 transposed convolution from size `small` to `large`, twice as large or one less."""
    extra = (large[0] - 2 * small[0] + 1, large[1] - 2 * small[1] + 1)
    return nn.ConvTranspose2d(before, after, 3, stride=2, padding=1, output_padding=extra)


class DoublingOutput(nn.Module):
    """The last layer of a convolutional decoder: a 3×3 convolution at half the size gives the four pixels of each
    2×2 square as channels, so that nothing is computed at full size; the bias is a whole image.

    W. Shi et al., Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel CNN, 2016.

    Args:
        channels: channels at half the size.
        out_shape: (C', H, W).
    """

    def __init__(self, channels: int, out_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.out_shape = out_shape
        self.conv = nn.Conv2d(channels, 4 * out_shape[0], 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_shape))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n cc hh ww"]:
        _, height, width = self.out_shape
        return nn.functional.pixel_shuffle(self.conv(x), 2)[..., :height, :width] + self.bias

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the bias to `output` (C', H, W)."""
        self.bias.copy_(output)


class FullOutput(nn.Module):
    """The last layer of a decoder whose last maps have the image's size: a 3×3 convolution; the bias is a whole image.

    Args:
        channels: of the maps.
        out_shape: (C', H, W).
    """

    def __init__(self, channels: int, out_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_shape[0], 3, padding=1, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_shape))

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n cc h w"]:
        return self.conv(x) + self.bias

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the bias to `output` (C', H, W)."""
        self.bias.copy_(output)
