"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.networks.layers import Shape, activation_layer

Layer = Callable[[int, int], list[nn.Module]]


def _plain(activation: str, before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), activation_layer(activation)]


def _gated(before: int, after: int) -> list[nn.Module]:
    """(W x + b) ⊙ σ(V x + c), both products in one."""
    return [nn.Linear(before, 2 * after), nn.GLU()]


class _FlatEncoder(nn.Module):
    def __init__(self, shape: Shape, out_features: int, hidden: Sequence[int], layer: Layer) -> None:
        super().__init__()
        sizes = [math.prod(shape), *hidden]
        self.layers = nn.Sequential(*(part for pair in zip(sizes, sizes[1:]) for part in layer(*pair)))
        self.output = nn.Linear(sizes[-1], out_features)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n f"]:
        return self.output(self.layers(x.flatten(1)))


class _FlatDecoder(nn.Module):
    def __init__(self, latent_dim: int, out_shape: Shape, hidden: Sequence[int], layer: Layer) -> None:
        super().__init__()
        sizes = [latent_dim, *hidden]
        self.out_shape = tuple(out_shape)
        self.layers = nn.Sequential(*(part for pair in zip(sizes, sizes[1:]) for part in layer(*pair)))
        self.output = nn.Linear(sizes[-1], math.prod(out_shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n cc h w"]:
        return self.output(self.layers(z)).unflatten(-1, self.out_shape)

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "cc h w"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.bias.copy_(output.flatten())


class MLPEncoder(_FlatEncoder):
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
        super().__init__(shape, out_features, hidden, partial(_plain, activation))


class MLPDecoder(_FlatDecoder):
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
        super().__init__(latent_dim, out_shape, hidden, partial(_plain, activation))


class GatedMLPEncoder(_FlatEncoder):
    """Image (N, C, H, W) → features (N, out_features), each hidden layer h = (W x + b) ⊙ σ(V x + c).

    Y. N. Dauphin and D. Grangier, Predicting distributions with Linearizing Belief Networks, 2016; J. M. Tomczak and
    M. Welling, VAE with a VampPrior, 2018.

    Args:
        shape: (C, H, W).
        out_features: how many features to give.
        hidden: widths of the hidden layers.
    """

    def __init__(self, shape: Shape, out_features: int, hidden: Sequence[int] = (300, 300)) -> None:
        super().__init__(shape, out_features, hidden, _gated)


class GatedMLPDecoder(_FlatDecoder):
    """Latent vector (N, D) → likelihood parameters (N, C', H, W), with the hidden layers of `GatedMLPEncoder`.

    Args:
        latent_dim: D.
        out_shape: (C', H, W).
        hidden: widths of the hidden layers.
    """

    def __init__(self, latent_dim: int, out_shape: Shape, hidden: Sequence[int] = (300, 300)) -> None:
        super().__init__(latent_dim, out_shape, hidden, _gated)
