"""The aggregate posterior compared with the prior by their samples."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.constraints import NonNegative
from vae_cli.data.batches import Batch
from vae_cli.models import Model
from vae_cli.objectives.base import ENOUGH_CODES, Bound, Objective

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class InfoVAE(Objective):
    r"""reconstruction − (1 − α) KL(q(z|x) ‖ p(z)) − (α + λ − 1) MMD²(q(z), p(z))

    S. Zhao, J. Song and S. Ermon, InfoVAE, 2019. With α = 1 it is a Wasserstein autoencoder with weight λ:
    I. Tolstikhin et al., Wasserstein Auto-Encoders, 2018.

    Args:
        alpha: α.
        weight: λ.
        mc_samples: K.
    """

    smallest_batch = ENOUGH_CODES

    def __init__(self, alpha: NonNegative = 0.0, weight: NonNegative = 1000.0, mc_samples: int = 1) -> None:
        super().__init__(mc_samples)
        self.alpha, self.weight = alpha, weight

    @property
    def selects_by(self) -> Literal["loss"]:
        return "loss"

    @property
    def couples_batch(self) -> str:
        return "the MMD compares a batch's images with each other"

    def check(self, model: Model) -> None:
        self.need_flat(model)

    def noise_dim(self, model: Model) -> int:
        return model.noise_dim + model.prior.noise_dim

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        own, priors = noise.split([model.noise_dim, model.prior.noise_dim], dim=-1)
        evidence = model.evidence(x, own, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        kl = evidence.kl()
        drawn, _ = evidence.prior.rsample_and_log_prob(priors)
        # Draw by draw: two draws of one image are no independent draws of the aggregate posterior.
        gap = torch.stack([mmd(z, prior_z) for z, prior_z in zip(evidence.z, drawn)]).mean()
        loss = ((1 - self.alpha) * kl - reconstruction).mean() + (self.alpha + self.weight - 1) * gap
        elbo = reconstruction - kl
        return Bound(loss, elbo, elbo, {"reconstruction": reconstruction, "kl": kl, "mmd": gap})


def mmd(a: Float[Tensor, "n d"], b: Float[Tensor, "m d"]) -> Float[Tensor, ""]:
    """Return the unbiased estimate of the squared maximum mean discrepancy between two samples; 0 for a single pair.

    The kernel is a sum of inverse multiquadrics C/(C + |a − b|²) with C = 2 D s for s from 0.1 to 10.
    """
    if len(a) < 2 or len(b) < 2:
        return a.new_zeros(())

    def mean_kernel(one: Tensor, other: Tensor, same: bool) -> Tensor:
        distance = torch.cdist(one, other, compute_mode="donot_use_mm_for_euclid_dist").square()
        kernel = sum(c / (c + distance) for c in (2 * a.shape[-1] * scale for scale in SCALES))
        assert isinstance(kernel, Tensor)
        if not same:
            return kernel.mean()
        return (kernel.sum() - kernel.diagonal().sum()) / (len(one) * (len(one) - 1))

    return mean_kernel(a, a, True) + mean_kernel(b, b, True) - 2 * mean_kernel(a, b, False)
