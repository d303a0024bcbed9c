"""Kullback–Leibler divergences between latent distributions, where a closed form exists."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.distributions import Distribution, kl_divergence, register_kl

from vae_cli.distributions.factorized import Factorized
from vae_cli.distributions.latent import LatentDistribution
from vae_cli.distributions.normals import DiagonalNormal, FullNormal, StandardNormal


def analytic_kl(q: Distribution, p: Distribution) -> Tensor | None:
    """Return KL(q ‖ p) in nats, of their batch shape; None where no closed form is registered."""
    try:
        return kl_divergence(q, p)
    except NotImplementedError:
        return None


def kl_by_dimension(q: LatentDistribution, p: LatentDistribution) -> Tensor | None:
    """Return the KL of each dimension, (*batch, D); None unless both factorize with a closed form."""
    if isinstance(q, DiagonalNormal) and isinstance(p, DiagonalNormal):
        return _of_normals(q, p)
    if isinstance(q, Factorized) and isinstance(p, Factorized):
        return analytic_kl(q.base, p.base)
    return None


def _of_normals(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    """Return log(σ_p / σ_q) + (σ_q² + (μ_q − μ_p)²) / 2σ_p² − ½ of each dimension."""
    if isinstance(p, StandardNormal):  # in fewer operations
        return 0.5 * (q.loc.square() + q.variance - 1) - q.log_scale
    log_ratio = q.log_scale - p.log_scale
    distance = ((q.loc - p.loc) / p.scale).square()
    return 0.5 * ((2 * log_ratio).exp() + distance - 1) - log_ratio


@register_kl(DiagonalNormal, DiagonalNormal)
def _diagonal_diagonal(q: DiagonalNormal, p: DiagonalNormal) -> Tensor:
    return _of_normals(q, p).sum(-1)


@register_kl(Factorized, Factorized)
def _factorized_factorized(q: Factorized, p: Factorized) -> Tensor:
    return kl_divergence(q.base, p.base).sum(-1)


@register_kl(FullNormal, DiagonalNormal)
def _full_diagonal(q: FullNormal, p: DiagonalNormal) -> Tensor:
    # ½ [ tr(Σ_p⁻¹ L Lᵀ) + |(μ_q − μ_p) / σ_p|² − D ] + Σ_d log σ_p − log det L
    trace = (q.scale_tril / p.scale.unsqueeze(-1)).square().sum((-2, -1))
    distance = ((q.loc - p.loc) / p.scale).square().sum(-1)
    log_det = p.log_scale.expand(torch.broadcast_shapes(p.log_scale.shape, q.loc.shape)).sum(-1) - q.log_det
    return 0.5 * (trace + distance - q.event_shape[0]) + log_det
