"""Residual networks: two blocks per entry of `channels`, for images of any size."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.constraints import Channels
from vae_cli.networks.layers import (
    ACTIVATIONS,
    Activation,
    DoublingOutput,
    Shape,
    doubling,
    group_norm,
    halved,
    image_shape,
)


class ResidualBlock(nn.Module):
    """x → x + f(x) at one size and number of channels, f = (norm, activation, 3×3 convolution) twice.

    K. He et al., Identity Mappings in Deep Residual Networks, 2016.
    """

    def __init__(self, channels: int, activation: Activation) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            group_norm(channels),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, 3, padding=1),
            group_norm(channels),
            ACTIVATIONS[activation](),
            nn.Conv2d(channels, channels, 3, padding=1),
        )
        # The block starts as the identity.
        last = self.residual[-1]
        assert isinstance(last, nn.Conv2d) and last.bias is not None
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        return torch.add(x, self.residual(x))


class ResNetEncoder(nn.Module):
    """Image (N, C, H, W) → features (N, out_features): per entry of `channels` a stride-2 convolution and two
    residual blocks, then a linear layer.

    Args:
        shape: (C, H, W).
        out_features: number of features.
        channels: channels at each size.
        activation: of every block.
    """

    def __init__(
        self, shape: Shape, out_features: int, channels: Channels = (16, 32), activation: Activation = "silu"
    ) -> None:
        super().__init__()
        depth, height, width = image_shape(shape)
        blocks: list[nn.Module] = []
        for before, after in zip([depth, *channels], channels):
            blocks.append(nn.Conv2d(before, after, 3, stride=2, padding=1))
            blocks += [ResidualBlock(after, activation), ResidualBlock(after, activation)]
        height, width = halved(height, width, times=len(channels))[-1]
        self.blocks = nn.Sequential(*blocks, group_norm(channels[-1]), ACTIVATIONS[activation]())
        self.output = nn.Linear(channels[-1] * height * width, out_features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        return self.output(self.blocks(x).flatten(1))


class ResNetDecoder(nn.Module):
    """Latent vector (N, D) → likelihood parameters (N, C', H, W): a linear layer to the smallest size, then per
    entry of `channels` two residual blocks and a doubling, the last of which gives the output.

    Args:
        latent_dim: D.
        out_shape: (C', H, W).
        channels: channels at each size, smallest first.
        activation: of every block.
    """

    def __init__(
        self, latent_dim: int, out_shape: Shape, channels: Channels = (32, 16), activation: Activation = "silu"
    ) -> None:
        super().__init__()
        sizes = halved(*image_shape(out_shape)[1:], times=len(channels))[::-1]
        self.start = (channels[0], *sizes[0])
        self.input = nn.Linear(latent_dim, channels[0] * sizes[0][0] * sizes[0][1])
        blocks: list[nn.Module] = []
        for level, width in enumerate(channels):
            if level:
                blocks.append(doubling(channels[level - 1], width, sizes[level - 1], sizes[level]))
            blocks += [ResidualBlock(width, activation), ResidualBlock(width, activation)]
        self.blocks = nn.Sequential(*blocks, group_norm(channels[-1]), ACTIVATIONS[activation]())
        self.output = DoublingOutput(channels[-1], image_shape(out_shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n cc h w"]:
        return self.output(self.blocks(self.input(z).unflatten(-1, self.start)))

    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.start_at(output)
