"""Heads that turn an encoder's features into q(z|x)."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.constraints import Count, Widths
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.flows import FlowDistribution, Kind, build_flow
from vae_cli.distributions.normals import DiagonalNormal, FullNormal


class Posterior(nn.Module, ABC):
    """From features (*batch, features) to a distribution over z (*batch, D).

    `forward` returns a `LatentDistribution`, or a torch distribution that `as_latent` takes. The objectives and priors
    that need its optional methods refuse a posterior without them.

    Args:
        latent_dim: D.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    @abstractmethod
    def features(self) -> int:
        """Numbers per example that the encoder must give."""

    @property
    def noise_dim(self) -> int:
        """Base normals that one draw of z takes."""
        return self.latent_dim

    @abstractmethod
    def forward(self, features: Tensor) -> Distribution:
        """Return q(z|x)."""


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


class FlowPosterior(Posterior):
    """q(z|x): a flow of a diagonal normal N(μ(x), diag σ(x)²), conditioned on further features of the encoder.

    With `coupling` z, its density and the density of any other z take one pass each. With `maf` it is an inverse
    autoregressive flow, and with `nsf` one of splines: drawing z and its density takes one pass, the density of any
    other z, which a VampPrior, `stl` and `dreg` ask for, one per dimension.

    D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016.

    Args:
        latent_dim: D.
        kind: `coupling`, `maf` or `nsf`; see `build_flow`.
        transforms: how many maps are composed.
        hidden: widths of each map's network.
        context: features that the maps are conditioned on.
        bins: of the splines of `nsf`.
    """

    def __init__(
        self,
        latent_dim: int,
        kind: Kind = "coupling",
        transforms: Count = 2,
        hidden: Widths = (64,),
        context: Count = 32,
        bins: Count = 8,
    ) -> None:
        super().__init__(latent_dim)
        self.context = context
        self.flow = build_flow(kind, latent_dim, context, transforms, hidden, bins)

    @property
    def features(self) -> int:
        return 2 * self.latent_dim + self.context

    def forward(self, features: Float[Tensor, "*batch f"]) -> FlowDistribution:
        d = self.latent_dim
        loc, raw, context = features.split([d, d, self.context], dim=-1)
        return FlowDistribution(DiagonalNormal(loc, bounded_log_scale(raw)), self.flow, context)
