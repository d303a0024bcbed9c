"""The total correlation as a discriminator estimates it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import softplus

from vae_cli.constraints import Betas, NonNegative, Positive, Widths
from vae_cli.data.batches import Batch
from vae_cli.models import Model
from vae_cli.objectives.base import ENOUGH_CODES, Bound, IncompatibleError, Objective, frozen
from vae_cli.optimizers import adam

SLOPE = 0.2  # of the leaky rectifiers


class FactorVAE(Objective):
    r"""ELBO(x) − γ TC(z),   TC(z) = KL(q(z) ‖ Π_d q(z_d)) ≈ E_q(z) [log D(z) − log(1 − D(z))]

    with the aggregate posterior q(z) and a discriminator D of its codes and those of Π_d q(z_d), which minimizes
    −½ E_q(z) log D(z) − ½ E_Πq(z_d) log(1 − D(z)). H. Kim and A. Mnih, Disentangling by Factorising, 2018.

    The codes of Π_d q(z_d) are the batch's own, each dimension permuted among its images. The paper permutes a second
    batch. Each expectation needs codes of its own distribution alone, so that one batch serves for both: two halves of
    it would have half of the codes each, and two dimensions of one image twice as often, with a probability of 2/B.

    Args:
        gamma: γ.
        hidden: widths of the discriminator's layers; the paper has six of 1,000.
        lr: the learning rate of the discriminator's Adam, which no schedule changes.
        betas: of its Adam.
        mc_samples: K. The draws are permuted one by one: two draws of one image are no independent codes.
        latent_dim: D.
    """

    module: nn.Module
    smallest_batch = ENOUGH_CODES

    def __init__(
        self,
        gamma: NonNegative = 10.0,
        hidden: Widths = (256, 256, 256),
        lr: Positive = 1e-4,
        betas: Betas = (0.5, 0.9),
        mc_samples: int = 1,
        latent_dim: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        self.gamma, self.lr, self.betas, self.latent_dim = gamma, lr, betas, latent_dim
        self.module = discriminator(latent_dim, hidden)

    def module_optimizer(self) -> torch.optim.Optimizer:
        return adam(self.module.parameters(), self.lr, self.betas)

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        return "loss" if self.gamma else "bound"

    @property
    def couples_batch(self) -> str:
        return "the discriminator is shown codes that are permuted among a batch's images"

    def check(self, model: Model) -> None:
        self.need_flat(model)
        if model.latent_dim < 2:
            raise IncompatibleError("one dimension has no total correlation", "objective", "latent_dim")

    def noise_dim(self, model: Model) -> int:
        return model.noise_dim + model.latent_dim

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        own, places = noise.split([model.noise_dim, model.latent_dim], dim=-1)
        evidence = model.evidence(x, own, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        kl = evidence.kl()
        elbo = reconstruction - kl
        correlation = frozen(self.module)(evidence.z).squeeze(-1).mean(0)
        module_loss, accuracy = self.discrimination(evidence.z.detach(), places)
        terms = {"total_correlation": correlation, "discriminator_accuracy": accuracy}
        terms = {"reconstruction": reconstruction, "kl": kl, **terms}
        return Bound(self.gamma * correlation.mean() - elbo.mean(), elbo, elbo, terms, module_loss)

    def discrimination(
        self, z: Float[Tensor, "k b d"], places: Float[Tensor, "k b d"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Return the discriminator's loss, in nats, and the share of codes that it takes for what they are.

        Args:
            z: codes.
            places: independent numbers, whose order permutes each dimension.
        """
        of_joint, of_product = self.module(torch.stack([z, z.gather(1, places.argsort(1))]))
        loss = (softplus(-of_joint).mean() + softplus(of_product).mean()) / 2
        return loss, ((of_joint > 0).to(z).mean() + (of_product < 0).to(z).mean()) / 2


def discriminator(latent_dim: int, hidden: Sequence[int]) -> nn.Sequential:
    """Return a network from codes (*, D) to log D(z) − log(1 − D(z)), (*, 1)."""
    sizes = [latent_dim, *hidden]
    layers = [part for pair in pairwise(sizes) for part in (nn.Linear(*pair), nn.LeakyReLU(SLOPE))]
    return nn.Sequential(*layers, nn.Linear(sizes[-1], 1))
