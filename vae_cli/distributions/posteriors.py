"""Heads that turn an encoder's features into q(z|x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.normals import DiagonalNormal, FullNormal


class Posterior(nn.Module, ABC):
    """From features (*batch, features) to a distribution over z (*batch, D) with `push(noise)` and `log_prob`.

    Args:
        latent_dim: D.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    @abstractmethod
    def features(self) -> int:
        """How many numbers per image the encoder must give."""

    @property
    def noise_dim(self) -> int:
        """How many base normals one draw of z takes."""
        return self.latent_dim

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution: ...


class DiagonalNormalPosterior(Posterior):
    """q(z|x) = N(μ(x), diag σ(x)²), with log σ bounded softly to about [−7, 4].

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014.
    """

    @property
    def features(self) -> int:
        return 2 * self.latent_dim

    def forward(self, features: Float[Tensor, "*batch f"]) -> DiagonalNormal:
        loc, raw = features.chunk(2, dim=-1)
        return DiagonalNormal(loc, bounded_log_scale(raw))


class FullNormalPosterior(Posterior):
    """q(z|x) = N(μ(x), L(x) L(x)ᵀ): the Cholesky factor's D(D−1)/2 entries below the diagonal are free, the
    logarithms of its diagonal bounded softly to about [−7, 4].

    D. P. Kingma and M. Welling, An Introduction to Variational Autoencoders, 2019, section 2.5.1.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        rows, columns = torch.tril_indices(latent_dim, latent_dim, offset=-1)
        self.register_buffer("_below", rows * latent_dim + columns, persistent=False)

    _below: Tensor

    @property
    def features(self) -> int:
        return 2 * self.latent_dim + len(self._below)

    def forward(self, features: Float[Tensor, "*batch f"]) -> FullNormal:
        d = self.latent_dim
        loc, raw, below = features.split([d, d, len(self._below)], dim=-1)
        flat = features.new_zeros(*features.shape[:-1], d * d).index_copy(-1, self._below, below)
        diagonal = torch.diag_embed(bounded_log_scale(raw).exp())
        return FullNormal(loc, flat.unflatten(-1, (d, d)) + diagonal)
