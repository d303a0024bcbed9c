"""Convolutional networks: one stride-2 block per entry of `channels`, for images of any size."""

from __future__ import annotations

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


class ConvEncoder(nn.Module):
    """Image (N, C, H, W) → features (N, out_features): 3×3 convolutions that halve the image, then a linear layer.

    Args:
        shape: (C, H, W).
        out_features: number of features.
        channels: channels after each convolution.
        activation: of every block.
    """

    def __init__(
        self, shape: Shape, out_features: int, channels: Channels = (32, 64), activation: Activation = "silu"
    ) -> None:
        super().__init__()
        depth, height, width = image_shape(shape)
        blocks: list[nn.Module] = []
        for before, after in zip([depth, *channels], channels):
            conv = nn.Conv2d(before, after, 3, stride=2, padding=1)
            blocks += [conv, group_norm(after), ACTIVATIONS[activation]()]
        height, width = halved(height, width, times=len(channels))[-1]
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(channels[-1] * height * width, out_features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        return self.output(self.blocks(x).flatten(1))


class ConvDecoder(nn.Module):
    """Latent vector (N, D) → likelihood parameters (N, C', H, W): a linear layer to the smallest size and a stride-2
    transposed block per entry of `channels`, the last of which gives the output.

    Args:
        latent_dim: D.
        out_shape: (C', H, W).
        channels: channels before each doubling.
        activation: of every block.
    """

    def __init__(
        self, latent_dim: int, out_shape: Shape, channels: Channels = (64, 32), activation: Activation = "silu"
    ) -> None:
        super().__init__()
        sizes = halved(*image_shape(out_shape)[1:], times=len(channels))[::-1]
        self.start = (channels[0], *sizes[0])
        self.input = nn.Linear(latent_dim, channels[0] * sizes[0][0] * sizes[0][1])
        blocks: list[nn.Module] = [group_norm(channels[0]), ACTIVATIONS[activation]()]
        for before, after, small, large in zip(channels, channels[1:], sizes, sizes[1:]):
            blocks += [doubling(before, after, small, large), group_norm(after), ACTIVATIONS[activation]()]
        self.blocks = nn.Sequential(*blocks)
        self.output = DoublingOutput(channels[-1], image_shape(out_shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n cc h w"]:
        return self.output(self.blocks(self.input(z).unflatten(-1, self.start)))

    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.start_at(output)
