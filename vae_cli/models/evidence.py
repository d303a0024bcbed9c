"""The terms of the bounds, before anything is averaged."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vae_cli.distributions import LatentDistribution, analytic_kl, kl_by_dimension


@dataclass(frozen=True)
class Level:
    """One level of latent variables of B examples at K draws, given the levels above.

    Args:
        name: `z`; or, of a hierarchy, `z1` for the nearest to the data, `z2` …
        z: (K, B, D).
        log_p: log p(z_l | z_{>l}), (K, B).
        log_q: log q(z_l | z_{>l}, x), (K, B).
        posterior: q(z_l | z_{>l}, x), of batch shape (B,) at the top and (K, B) below.
        prior: p(z_l | z_{>l}), of the same batch shape or ().
    """

    name: str
    z: Float[Tensor, "k b d"]
    log_p: Float[Tensor, "k b"]
    log_q: Float[Tensor, "k b"]
    posterior: LatentDistribution
    prior: LatentDistribution

    def analytic_kl(self) -> Float[Tensor, "b"] | None:
        """Return KL(q(z_l | z_{>l}, x) ‖ p(z_l | z_{>l})), the mean over the draws above; None without closed form."""
        kl = analytic_kl(self.posterior, self.prior)
        return kl if kl is None or kl.dim() < 2 else kl.mean(0)

    def kl_by_dimension(self) -> Float[Tensor, "b d"] | None:
        """Return the terms of the analytic KL, which is None unless posterior and prior factorize."""
        kl = kl_by_dimension(self.posterior, self.prior)
        return kl if kl is None or kl.dim() < 3 else kl.mean(0)


@dataclass(frozen=True)
class Evidence:
    """The log-densities of B examples at K draws of z each, in nats, and the distributions themselves.

    Args:
        z: (K, B, D).
        log_p_x_given_z: (K, B).
        log_p_z: (K, B), summed over the levels.
        log_q_z_given_x: (K, B), summed over the levels.
        posterior: q(z|x), of batch shape (B,).
        prior: p(z).
        likelihood: p(x|z), of batch shape (K, B).
        levels: one by one, in the order of z.
    """

    z: Float[Tensor, "k b d"]
    log_p_x_given_z: Float[Tensor, "k b"]
    log_p_z: Float[Tensor, "k b"]
    log_q_z_given_x: Float[Tensor, "k b"]
    posterior: LatentDistribution
    prior: LatentDistribution
    likelihood: Distribution
    levels: tuple[Level, ...] = ()

    def kl(self) -> Float[Tensor, "b"]:
        """Return KL(q(z|x) ‖ p(z)) of one level: its closed form, or the mean of log q − log p over the draws."""
        closed = analytic_kl(self.posterior, self.prior)
        return (self.log_q_z_given_x - self.log_p_z).mean(0) if closed is None else closed
