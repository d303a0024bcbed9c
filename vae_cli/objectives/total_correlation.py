"""The total correlation VAE, which weights three parts of the KL."""

from __future__ import annotations

import math
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.constraints import NonNegative
from vae_cli.data.batches import Batch
from vae_cli.models import Evidence, Model
from vae_cli.objectives.base import ENOUGH_CODES, Bound, IncompatibleError, Objective


class BetaTC(Objective):
    r"""reconstruction − α I(x; z) − β TC(z) − γ Σ_d KL(q(z_d) ‖ p(z_d)), where the three sum to the KL:

        KL(q(z|x) ‖ p(z)) = [log q(z|x) − log q(z)] + [log q(z) − Σ_d log q(z_d)] + Σ_d [log q(z_d) − log p(z_d)]

    with the aggregate posterior q(z) = (1/N) Σ_n q(z|x_n) over all N training images, estimated from a batch of M that
    holds the image x_i itself:

    - `leave_one_in`: q(z) ≈ q(z|x_i)/N + (N−1)/(N(M−1)) Σ_{j≠i} q(z|x_j), unbiased, and exact at M = N;
    - `minibatch_weighted`: q(z) ≈ (1/NM) Σ_j q(z|x_j);
    - `stratified`: as published, the batch weighted 1/N for x_i, (N−M+1)/(N(M−1)) for one other image, 1/(M−1) for
      the rest.

    R. T. Q. Chen et al., Isolating Sources of Disentanglement in VAEs, 2018.

    Args:
        alpha: α.
        beta: β.
        gamma: γ.
        estimator: of q(z), see above.
        mc_samples: K.
        size: N.
    """

    smallest_batch = ENOUGH_CODES

    def __init__(
        self,
        alpha: NonNegative = 1.0,
        beta: NonNegative = 4.0,
        gamma: NonNegative = 1.0,
        estimator: Literal["leave_one_in", "minibatch_weighted", "stratified"] = "leave_one_in",
        mc_samples: int = 1,
        size: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        self.weights, self.estimator, self.size = (alpha, beta, gamma), estimator, size

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        return "bound" if self.weights == (1, 1, 1) else "loss"

    @property
    def couples_batch(self) -> str:
        return "the total correlation compares a batch's images with each other"

    def check(self, model: Model) -> None:
        self.need_flat(model)
        posterior, prior = model.example_distributions()
        if not prior.is_factorized:
            reason = (
                "the terms of the KL are taken dimension by dimension, and this prior's dimensions depend on each other"
            )
            raise IncompatibleError(reason, "objective", "prior")
        if not posterior.provides("marginals"):
            reason = "the terms of the KL need the posterior of each dimension alone, which this one does not give"
            raise IncompatibleError(reason, "objective", "posterior")

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        evidence = model.evidence(x, noise, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        information, correlation, dimensions = self.terms(evidence)
        kl = (evidence.log_q_z_given_x - evidence.log_p_z).mean(0)
        alpha, beta, gamma = self.weights
        loss = (alpha * information + beta * correlation + gamma * dimensions - reconstruction).mean()
        elbo = reconstruction - kl
        terms = {"mutual_information": information, "total_correlation": correlation, "dimension_kl": dimensions}
        return Bound(loss, elbo, elbo, {"reconstruction": reconstruction, "kl": kl, **terms})

    def terms(self, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
        """Return the index-code mutual information, the total correlation and the dimensions' KL, each (B,)."""
        q, z = evidence.posterior, evidence.z
        if z.shape[1] == 1:  # one image says nothing about the aggregate posterior
            kl = (evidence.log_q_z_given_x - evidence.log_p_z).mean(0)
            return torch.zeros_like(kl), torch.zeros_like(kl), kl
        log_weights = self.log_weights(z.shape[1]).to(z)
        others = z.unsqueeze(2)  # (K, B, 1, D) against the batch's posteriors (B,)
        log_q_z = (q.log_prob(others) + log_weights).logsumexp(2)
        by_dimension = q.marginals().log_prob_by_dimension(others)
        log_q_z_d = (by_dimension + log_weights.unsqueeze(-1)).logsumexp(2)
        information = evidence.log_q_z_given_x - log_q_z
        correlation = log_q_z - log_q_z_d.sum(-1)
        dimensions = log_q_z_d.sum(-1) - evidence.log_p_z
        return information.mean(0), correlation.mean(0), dimensions.mean(0)

    def log_weights(self, count: int) -> Float[Tensor, "i j"]:
        """Return the log of the weight of q(z_i|x_j) in q(z_i), for a batch of `count` images."""
        size = max(self.size, count)
        if self.estimator == "minibatch_weighted":
            return torch.full((count, count), -math.log(size * count), dtype=torch.float64)
        own = torch.eye(count, dtype=torch.float64)
        weights = own / size + (1 - own) * (size - 1) / (size * (count - 1))
        if self.estimator == "stratified":
            weights = own / size + (1 - own) / (count - 1)
            number = torch.arange(count)
            weights[number, (number + 1) % count] = (size - count + 1) / (size * (count - 1))
        return weights.log()
