"""Priors p(z)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions.normals import DiagonalNormal

Infer = Callable[[Tensor], Distribution]


class Prior(nn.Module, ABC):
    """A distribution over z with `push(noise)` and `log_prob`.

    Args:
        latent_dim: D.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def noise_dim(self) -> int:
        """How many base normals one draw of z takes."""
        return self.latent_dim

    @abstractmethod
    def forward(self, infer: Infer, y: Tensor | None = None) -> Distribution:
        """p(z), or p(z|y); `infer` maps images to q(z|x), for priors made of posteriors."""


class StandardNormalPrior(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)

    _zeros: Tensor

    def forward(self, infer: Infer, y: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(self._zeros, self._zeros)
