"""What the loop asks of an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from jaxtyping import Float
from torch import Tensor

from vae_cli.data.batches import Batch
from vae_cli.models.vae import VAE


@dataclass(frozen=True)
class Bound:
    """What an objective makes of a batch of B images, in nats per image.

    Args:
        loss: a scalar to minimize.
        bound: (B,), what selects the best model: L_K for importance-weighted objectives, else the ELBO.
        elbo: (B,), the evidence lower bound, the mean over the draws, unweighted whatever shapes the loss.
        terms: named (B,) tensors or scalars, `reconstruction` and `kl` among them.
    """

    loss: Float[Tensor, ""]
    bound: Float[Tensor, "b"]
    elbo: Float[Tensor, "b"]
    terms: dict[str, Tensor] = field(default_factory=dict)


class Unfit(Exception):
    """Options of these groups do not go together; `why` is a clause that says why not."""

    def __init__(self, why: str, first: str, second: str, *more: str) -> None:
        super().__init__(why)
        self.why, self.groups = why, (first, second, *more)


class Objective(ABC):
    """Maps a model and a batch to a `Bound`.

    Args:
        mc_samples: K, the draws of z per image.
    """

    def __init__(self, mc_samples: int = 1) -> None:
        self.mc_samples = mc_samples

    @property
    def couples_batch(self) -> str | None:
        """What makes the loss of a batch something else than the mean of what its images give alone, so that a batch
        cannot be divided among processes; None if nothing does."""
        return None

    def noise_dim(self, model: VAE) -> int:
        """How many base normals per draw and image it takes."""
        return model.noise_dim

    def check(self, model: VAE) -> None:
        """Refuse a model this objective is not defined for.

        Raises:
            Unfit: naming the groups whose options do not go together, and why.
        """

    @abstractmethod
    def __call__(self, model: VAE, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        """The bound on a batch `(x, y)` with base noise for K draws, at a step of the training: a number, or with
        `compile=true` a scalar tensor."""
