"""Fully connected networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.constraints import Widths
from vae_cli.networks.layers import ACTIVATIONS, Activation, Shape

Layer = Callable[[int, int], list[nn.Module]]


def _plain(activation: Activation, before: int, after: int) -> list[nn.Module]:
    return [nn.Linear(before, after), ACTIVATIONS[activation]()]


def _gated(before: int, after: int) -> list[nn.Module]:
    """Return the layers of (W x + b) ⊙ σ(V x + c), both products in one."""
    return [nn.Linear(before, 2 * after), nn.GLU()]


class _FlatEncoder(nn.Module):
    def __init__(self, shape: Shape, out_features: int, hidden: Sequence[int], layer: Layer) -> None:
        super().__init__()
        sizes = [math.prod(shape), *hidden]
        self.layers = nn.Sequential(*(part for pair in zip(sizes, sizes[1:]) for part in layer(*pair)))
        self.output = nn.Linear(sizes[-1], out_features)

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n f"]:
        return self.output(self.layers(x.flatten(1)))


class _FlatDecoder(nn.Module):
    def __init__(self, latent_dim: int, out_shape: Shape, hidden: Sequence[int], layer: Layer) -> None:
        super().__init__()
        sizes = [latent_dim, *hidden]
        self.out_shape = tuple(out_shape)
        self.layers = nn.Sequential(*(part for pair in zip(sizes, sizes[1:]) for part in layer(*pair)))
        self.output = nn.Linear(sizes[-1], math.prod(out_shape))

    def forward(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n *shape"]:
        return self.output(self.layers(z)).unflatten(-1, self.out_shape)

    @torch.no_grad()
    def start_at(self, output: Float[Tensor, "*shape"]) -> None:
        """Set the output bias so that the mean output starts at `output`."""
        self.output.bias.copy_(output.flatten())


class MLPEncoder(_FlatEncoder):
    """Example (N, *shape) → features (N, out_features).

    Args:
        shape: of an example.
        out_features: number of features.
        hidden: widths of the hidden layers; with none the map is linear.
        activation: after each hidden layer.
    """

    def __init__(
        self, shape: Shape, out_features: int, hidden: Widths = (400,), activation: Activation = "relu"
    ) -> None:
        super().__init__(shape, out_features, hidden, partial(_plain, activation))


class MLPDecoder(_FlatDecoder):
    """Latent vector (N, D) → likelihood parameters (N, *out_shape).

    Args:
        latent_dim: D.
        out_shape: of the likelihood's parameters.
        hidden: widths of the hidden layers; with none the map is linear.
        activation: after each hidden layer.
    """

    def __init__(
        self, latent_dim: int, out_shape: Shape, hidden: Widths = (400,), activation: Activation = "relu"
    ) -> None:
        super().__init__(latent_dim, out_shape, hidden, partial(_plain, activation))


class GatedMLPEncoder(_FlatEncoder):
    """Example (N, *shape) → features (N, out_features), each hidden layer h = (W x + b) ⊙ σ(V x + c).

    Y. N. Dauphin and D. Grangier, Predicting distributions with Linearizing Belief Networks, 2016; J. M. Tomczak and
    M. Welling, VAE with a VampPrior, 2018.

    Args:
        shape: of an example.
        out_features: number of features.
        hidden: widths of the hidden layers.
    """

    def __init__(self, shape: Shape, out_features: int, hidden: Widths = (300, 300)) -> None:
        super().__init__(shape, out_features, hidden, _gated)


class GatedMLPDecoder(_FlatDecoder):
    """Latent vector (N, D) → likelihood parameters (N, *out_shape), with the hidden layers of `GatedMLPEncoder`.

    Args:
        latent_dim: D.
        out_shape: of the likelihood's parameters.
        hidden: widths of the hidden layers.
    """

    def __init__(self, latent_dim: int, out_shape: Shape, hidden: Widths = (300, 300)) -> None:
        super().__init__(latent_dim, out_shape, hidden, _gated)
