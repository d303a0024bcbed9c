"""Bounds from several importance-weighted draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vae_cli.data.batches import Batch
from vae_cli.errors import ConfigError
from vae_cli.models.vae import VAE
from vae_cli.objectives.base import Bound, Objective, Unfit

ESTIMATORS = ("pathwise", "dreg")


class IWAE(Objective):
    r"""L_K(x) = log (1/K) Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    With K = 1 it is the ELBO, and it rises with K. Y. Burda, R. Grosse and R. Salakhutdinov, Importance Weighted
    Autoencoders, 2016. The K draws may stand in `groups`, whose bounds are averaged (MIWAE), and the ELBO may have a
    part in the loss (CIWAE): T. Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018.

    Args:
        estimator: `pathwise`; or `dreg`, the doubly reparametrized gradient for the encoder, Σ_k w̃_k² ∂log w_k/∂z_k
            · ∂z_k/∂φ with w̃ the normalized weights and no score of q: G. Tucker et al., Doubly Reparameterized
            Gradient Estimators for Monte Carlo Objectives, 2019.
        groups: into how many groups of equal size the draws fall; as many as draws make it the ELBO.
        elbo_weight: the ELBO's part in the loss, from 0 to 1.
        mc_samples: K.

    Raises:
        ConfigError: for an unknown estimator, a weight out of range, or groups of unequal size.
    """

    def __init__(
        self, estimator: str = "pathwise", groups: int = 1, elbo_weight: float = 0.0, mc_samples: int = 1
    ) -> None:
        super().__init__(mc_samples)
        if estimator not in ESTIMATORS:
            raise ConfigError(f"objective.estimator={estimator} is none of {', '.join(ESTIMATORS)}")
        if mc_samples % groups:
            raise ConfigError(f"objective.groups={groups} does not divide mc_samples={mc_samples}")
        if not 0 <= elbo_weight <= 1:
            raise ConfigError(f"objective.elbo_weight={elbo_weight}: give a number from 0 to 1")
        if estimator == "dreg" and elbo_weight:
            raise ConfigError("objective.estimator=dreg is of the importance-weighted bound alone: set elbo_weight=0")
        self.estimator, self.groups, self.elbo_weight = estimator, groups, elbo_weight

    def check(self, model: VAE) -> None:
        if self.estimator == "dreg" and not hasattr(model.kinds()[0], "frozen"):
            raise Unfit("the posterior has no frozen()", "objective.estimator", "posterior")

    def __call__(self, model: VAE, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        dreg = _Dreg(self.groups) if self.estimator == "dreg" and torch.is_grad_enabled() else None
        evidence = model.evidence(x, noise, y, *([dreg] if dreg else []))
        reconstruction = evidence.log_p_x_given_z.mean(0)
        log_q = evidence.log_q_z_given_x
        log_w = evidence.log_p_x_given_z + evidence.log_p_z - log_q
        kl = (log_q - evidence.log_p_z).mean(0)
        bound = self._bound(log_w)
        if dreg:
            frozen = evidence.posterior.frozen().log_prob(evidence.z)  # type: ignore[attr-defined]
            surrogate = dreg.loss(evidence.log_p_x_given_z + evidence.log_p_z - frozen)
            loss = surrogate - (surrogate + bound.mean()).detach()  # the value of −L_K, the surrogate's gradient
        else:
            elbo = reconstruction - kl
            loss = -(bound + self.elbo_weight * (elbo - bound)).mean()
        return Bound(loss, bound, reconstruction - kl, {"reconstruction": reconstruction, "kl": kl})

    def _bound(self, log_w: Float[Tensor, "k b"]) -> Float[Tensor, "b"]:
        grouped = log_w.unflatten(0, (self.groups, -1))
        return (grouped.logsumexp(1) - math.log(grouped.shape[1])).mean(0)


class _Dreg:
    """A loss −Σ_k w̃_k log w_k with constant w̃, whose gradient arrives at the z that pass through times w̃ once more.

    Args:
        groups: into how many groups of equal size the draws fall.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.zeros: Tensor | None = None

    def __call__(self, z: Float[Tensor, "k b d"]) -> Float[Tensor, "k b d"]:
        z, self.zeros = _Weighed.apply(z, self.groups)
        return z

    def loss(self, log_w: Float[Tensor, "k b"]) -> Float[Tensor, ""]:
        assert self.zeros is not None
        weights = log_w.detach().unflatten(0, (self.groups, -1)).softmax(1).flatten(0, 1)
        return -(weights * (log_w + self.zeros)).sum(0).mean() / self.groups


class _Weighed(torch.autograd.Function):
    """z, and a zero for every draw, by whose gradient, its share in that of its group of draws, z's is multiplied."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        ctx.groups = groups
        return z.view_as(z), z.new_zeros(z.shape[:-1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, of_z: Tensor, of_zeros: Tensor) -> tuple[Tensor, None]:
        grouped = of_zeros.unflatten(0, (ctx.groups, -1))
        total = grouped.sum(1, keepdim=True)
        weights = torch.where(total == 0, 0, grouped / total).flatten(0, 1)
        return of_z * weights.unsqueeze(-1), None
