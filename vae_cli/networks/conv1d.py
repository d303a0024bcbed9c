"""Convolutional networks for sequences of any length: one stride-2 block per entry of `channels`."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.constraints import Channels, Count
from vae_cli.errors import ConfigError
from vae_cli.networks.layers import ACTIVATIONS, Activation, Shape, group_norm


def sequence_shape(shape: Shape) -> tuple[int, int]:
    """Return (C, L).

    Raises:
        ConfigError: for the shape of something else than sequences.
    """
    if len(shape) != 2:
        raise ConfigError(
            f"encoder=conv1d and decoder=conv1d need sequences (C, L), and these examples have the shape "
            f"{tuple(shape)}; choose mlp"
        )
    channels, length = shape
    return channels, length


def halved_lengths(length: int, times: int) -> list[int]:
    """Return the lengths before and after each of `times` stride-2 convolutions, which round up."""
    lengths = [length]
    for _ in range(times):
        lengths.append((lengths[-1] + 1) // 2)
    return lengths


class Conv1dEncoder(nn.Module):
    """Sequence (N, C, L) → features (N, out_features): convolutions that halve the sequence, then a linear layer.

    Args:
        shape: (C, L).
        out_features: number of features.
        channels: channels after each convolution.
        width: of the convolutions, an odd number.
        activation: of every block.
    """

    def __init__(
        self,
        shape: Shape,
        out_features: int,
        channels: Channels = (32, 64, 64),
        width: Count = 5,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        depth, length = sequence_shape(shape)
        _check_width(width)
        blocks: list[nn.Module] = []
        for before, after in zip([depth, *channels], channels):
            conv = nn.Conv1d(before, after, width, stride=2, padding=width // 2)
            blocks += [conv, group_norm(after), ACTIVATIONS[activation]()]
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Linear(channels[-1] * halved_lengths(length, len(channels))[-1], out_features)

    def forward(self, x: Float[Tensor, "n c l"]) -> Float[Tensor, "n f"]:
        return self.output(self.blocks(x).flatten(1))


class Conv1dDecoder(nn.Module):
    """Latent vector (N, D) → likelihood parameters (N, C', L): a linear layer to the smallest length, a stride-2
    transposed block per entry of `channels`, and a convolution; the bias of the output is a whole sequence.

    Args:
        latent_dim: D.
        out_shape: (C', L).
        channels: channels before each doubling.
        width: of the convolutions, an odd number.
        activation: of every block.
    """

    def __init__(
        self,
        latent_dim: int,
        out_shape: Shape,
        channels: Channels = (64, 64, 32),
        width: Count = 5,
        activation: Activation = "silu",
    ) -> None:
        super().__init__()
        depth, length = sequence_shape(out_shape)
        _check_width(width)
        lengths = halved_lengths(length, len(channels))[::-1]
        self.start = (channels[0], lengths[0])
        self.input = nn.Linear(latent_dim, channels[0] * lengths[0])
        blocks: list[nn.Module] = [group_norm(channels[0]), ACTIVATIONS[activation]()]
        for before, after, small, large in zip(channels, [*channels[1:], channels[-1]], lengths, lengths[1:]):
            extra = large - 2 * small + 1  # of twice the length, or one less
            double = nn.ConvTranspose1d(before, after, width, stride=2, padding=width // 2, output_padding=extra)
            blocks += [double, group_norm(after), ACTIVATIONS[activation]()]
        self.blocks = nn.Sequential(*blocks)
        self.output = nn.Conv1d(channels[-1], depth, width, padding=width // 2, bias=False)
        self.bias = nn.Parameter(torch.zeros(depth, length))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n cc l"]:
        return self.output(self.blocks(self.input(z).unflatten(-1, self.start))) + self.bias

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "cc l"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.bias.copy_(output)


def _check_width(width: int) -> None:
    if width % 2 == 0:
        raise ConfigError(f"width={width}: convolutions of sequences need an odd width; choose {width + 1}")
