"""The covariance of the latent code, drawn to the identity."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.constraints import NonNegative
from vae_cli.data.batches import Batch
from vae_cli.distributions import LatentDistribution
from vae_cli.models import Model
from vae_cli.objectives.base import ENOUGH_CODES, Bound, IncompatibleError, Objective

DIAGONAL_TIMES = {"i": 10.0, "ii": 1.0}  # the weight of the diagonal over that of the rest, as published


class DIPVAE(Objective):
    r"""ELBO(x) − λ_od Σ_{i≠j} C_ij² − λ_d Σ_i (C_ii − 1)²

    with C the covariance Cov_p(x)[μ(x)] of the posterior's mean (DIP-VAE-I), or that of the aggregate posterior,
    Cov_p(x)[μ(x)] + E_p(x)[Cov_q(z|x)[z]] (DIP-VAE-II), both estimated over a batch of B images.

    The estimate of C is without bias; its squares are not. Where C is the identity, Σ_ij (C_ij − δ_ij)² of normal means
    is about D² / B on average, and not 0. So a small batch has a larger penalty.

    A. Kumar, P. Sattigeri and A. Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations, 2018.

    Args:
        kind: `i` or `ii`.
        off_diagonal: λ_od.
        diagonal: λ_d; `auto` is 10 λ_od with `i` and λ_od with `ii`.
        mc_samples: K.
    """

    smallest_batch = ENOUGH_CODES

    def __init__(
        self,
        kind: Literal["i", "ii"] = "i",
        off_diagonal: NonNegative = 10.0,
        diagonal: Literal["auto"] | NonNegative = "auto",
        mc_samples: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        self.kind, self.off_diagonal = kind, off_diagonal
        self.diagonal = DIAGONAL_TIMES[kind] * off_diagonal if diagonal == "auto" else diagonal

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        return "loss" if self.off_diagonal or self.diagonal else "bound"

    @property
    def couples_batch(self) -> str:
        return "the covariance is that of a batch's images"

    def check(self, model: Model) -> None:
        self.need_flat(model)
        posterior, _ = model.example_distributions()
        if not posterior.provides("covariance"):
            reason = "it needs the posterior's mean and covariance, which this one does not give"
            raise IncompatibleError(reason, "objective", "posterior")

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        evidence = model.evidence(x, noise, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        kl = evidence.kl()
        off_diagonal, diagonal = self.distances(evidence.posterior)
        elbo = reconstruction - kl
        loss = self.off_diagonal * off_diagonal + self.diagonal * diagonal - elbo.mean()
        terms = {"covariance_off_diagonal": off_diagonal, "covariance_diagonal": diagonal}
        return Bound(loss, elbo, elbo, {"reconstruction": reconstruction, "kl": kl, **terms})

    def distances(self, posterior: LatentDistribution) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return Σ_{i≠j} C_ij² and Σ_i (C_ii − 1)²; 0 for a single image, which has no covariance."""
        mean = posterior.mean
        if len(mean) < 2:
            return mean.new_zeros(()), mean.new_zeros(())
        centered = mean - mean.mean(0)
        covariance = centered.mT @ centered / (len(mean) - 1)
        if self.kind == "ii":
            covariance = covariance + posterior.covariance().mean(0)
        identity = torch.eye(mean.shape[1], dtype=mean.dtype, device=mean.device)
        squares = (covariance - identity).square()
        return (squares * (1 - identity)).sum(), (squares * identity).sum()
