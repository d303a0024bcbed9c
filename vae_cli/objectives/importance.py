"""Bounds from several importance-weighted draws."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from vae_cli.constraints import Count, Fraction
from vae_cli.data.batches import Batch
from vae_cli.errors import ConfigError
from vae_cli.models import Model
from vae_cli.objectives.base import Bound, IncompatibleError, Objective, level_terms


class IWAE(Objective):
    r"""L_K(x) = log (1/K) Σ_k w_k,   w_k = p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    With K = 1 it is the ELBO, and it rises with K. Y. Burda, R. Grosse and R. Salakhutdinov, Importance Weighted
    Autoencoders, 2016. The K draws may stand in `groups`, whose bounds are averaged (MIWAE), and the ELBO may have a
    part in the loss (CIWAE): T. Rainforth et al., Tighter Variational Bounds are Not Necessarily Better, 2018.

    Args:
        estimator: `pathwise`; or `dreg`, the doubly reparametrized gradient for the encoder, Σ_k w̃_k² ∂log w_k/∂z_k
            · ∂z_k/∂φ with w̃ the normalized weights and no score of q: G. Tucker et al., Doubly Reparameterized
            Gradient Estimators for Monte Carlo Objectives, 2019.
        groups: number of groups of equal size that the draws fall into; as many as draws make it the ELBO.
        elbo_weight: the ELBO's part in the loss.
        mc_samples: K.

    Raises:
        ConfigError: for groups of unequal size, or `dreg` with an `elbo_weight`.
    """

    def __init__(
        self,
        estimator: Literal["pathwise", "dreg"] = "pathwise",
        groups: Count = 1,
        elbo_weight: Fraction = 0.0,
        mc_samples: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        if mc_samples % groups:
            raise ConfigError(f"objective.groups={groups} does not divide mc_samples={mc_samples}")
        if estimator == "dreg" and elbo_weight:
            raise ConfigError("objective.estimator=dreg is of the importance-weighted bound alone: set elbo_weight=0")
        self.estimator, self.groups, self.elbo_weight = estimator, groups, elbo_weight

    def check(self, model: Model) -> None:
        posterior, _ = model.example_distributions()
        if self.estimator == "dreg" and not posterior.provides("frozen"):
            raise IncompatibleError("the posterior has no frozen()", "objective.estimator", "posterior")

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        is_dreg = self.estimator == "dreg" and torch.is_grad_enabled()
        surrogate = _DoublyReparametrized(self.groups) if is_dreg else None
        evidence = model.evidence(x, noise, y) if surrogate is None else model.evidence(x, noise, y, surrogate.through)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        log_q = evidence.log_q_z_given_x
        log_w = evidence.log_p_x_given_z + evidence.log_p_z - log_q
        kl = (log_q - evidence.log_p_z).mean(0)
        grouped = log_w.unflatten(0, (self.groups, -1))
        bound = (grouped.logsumexp(1) - math.log(grouped.shape[1])).mean(0)
        if surrogate is None:
            elbo = reconstruction - kl
            loss = -(bound + self.elbo_weight * (elbo - bound)).mean()
        else:
            frozen = evidence.posterior.frozen().log_prob(evidence.z)
            value = surrogate.loss(evidence.log_p_x_given_z + evidence.log_p_z - frozen)
            loss = value - (value + bound.mean()).detach()  # the value of −L_K, the surrogate's gradient
        levels = level_terms(evidence, [(level.log_q - level.log_p).mean(0) for level in evidence.levels])
        return Bound(loss, bound, reconstruction - kl, {"reconstruction": reconstruction, "kl": kl, **levels})


class _DoublyReparametrized:
    """The surrogate loss −Σ_k w̃_k log w_k with constant normalized weights w̃, whose gradient in z_k is multiplied by
    w̃_k once more on its way to the encoder.

    Args:
        groups: number of groups of equal size that the draws fall into.
    """

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self.zeros: Tensor | None = None

    def through(self, z: Float[Tensor, "k b d"]) -> Float[Tensor, "k b d"]:
        """Return z, whose gradient will be weighted; every term of `loss` is made of it."""
        z, self.zeros = _WeightedGradient.apply(z, self.groups)
        return z

    def loss(self, log_w: Float[Tensor, "k b"]) -> Float[Tensor, ""]:
        """Return the surrogate loss; the zeros carry the weights to `_WeightedGradient`."""
        assert self.zeros is not None
        weights = log_w.detach().unflatten(0, (self.groups, -1)).softmax(1).flatten(0, 1)
        return -(weights * (log_w + self.zeros)).sum(0).mean() / self.groups


class _WeightedGradient(torch.autograd.Function):
    """z, and a zero for every draw. Backward, the gradient of z is multiplied by the draw's share in the gradients of
    its group's zeros."""

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
