"""The terms of the bounds, before anything is averaged."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vae_cli.distributions import LatentDistribution


@dataclass(frozen=True)
class Evidence:
    """The log-densities of B examples at K draws of z each, in nats, and the distributions themselves.

    Args:
        z: (K, B, D).
        log_p_x_given_z: (K, B).
        log_p_z: (K, B).
        log_q_z_given_x: (K, B).
        posterior: q(z|x), of batch shape (B,).
        prior: p(z).
        likelihood: p(x|z), of batch shape (K, B).
    """

    z: Float[Tensor, "k b d"]
    log_p_x_given_z: Float[Tensor, "k b"]
    log_p_z: Float[Tensor, "k b"]
    log_q_z_given_x: Float[Tensor, "k b"]
    posterior: LatentDistribution
    prior: LatentDistribution
    likelihood: Distribution
