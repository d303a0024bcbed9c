"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.networks.layers import Shape, activation_layer


def _layers(sizes: Sequence[int], activation: str) -> nn.Sequential:
    modules: list[nn.Module] = []
    for before, after in zip(sizes, sizes[1:]):
        modules += [nn.Linear(before, after), activation_layer(activation)]
    return nn.Sequential(*modules)


class MLPEncoder(nn.Module):
    """Image (N, C, H, W) → features (N, out_features).

    Args:
        shape: (C, H, W).
        out_features: how many features to give.
        hidden: widths of the hidden layers; none makes the map linear.
        activation: a name from `ACTIVATIONS`.
    """

    def __init__(
        self, shape: Shape, out_features: int, hidden: Sequence[int] = (400,), activation: str = "relu"
    ) -> None:
        super().__init__()
        sizes = [math.prod(shape), *hidden]
        self.layers = _layers(sizes, activation)
        self.output = nn.Linear(sizes[-1], out_features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        return self.output(self.layers(x.flatten(1)))


class MLPDecoder(nn.Module):
    """Latent vector (N, D) → likelihood parameters (N, C', H, W).

    Args:
        latent_dim: D.
        out_shape: (C', H, W).
        hidden: widths of the hidden layers; none makes the map linear.
        activation: a name from `ACTIVATIONS`.
    """

    def __init__(
        self, latent_dim: int, out_shape: Shape, hidden: Sequence[int] = (400,), activation: str = "relu"
    ) -> None:
        super().__init__()
        sizes = [latent_dim, *hidden]
        self.out_shape = tuple(out_shape)
        self.layers = _layers(sizes, activation)
        self.output = nn.Linear(sizes[-1], math.prod(out_shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n cc h w"]:
        return self.output(self.layers(z)).unflatten(-1, self.out_shape)

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.bias.copy_(output.flatten())
