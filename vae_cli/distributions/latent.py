"""The contract of distributions over latent vectors: what a model, an objective or a picture may ask of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution, constraints

OptionalMethod = Literal["moments", "covariance", "marginals", "frozen", "select", "log_prob_by_dimension", "quantiles"]


class LatentDistribution(Distribution, ABC):
    """A distribution over vectors z (D,), of batch shape (*batch,), that maps base noise and never draws.

    A subclass needs `rsample_and_log_prob`, `log_prob` and `mean`. The other methods are optional: `provides` tells
    whether a distribution has them, and each names what asks for it.

    Attributes:
        is_factorized: its dimensions are independent: it provides `log_prob_by_dimension` and `quantiles`.
    """

    arg_constraints: ClassVar[dict[str, constraints.Constraint]] = {}
    support = constraints.real_vector
    is_factorized: ClassVar[bool] = False

    @abstractmethod
    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """Return z and log p(z), in nats, for base noise ε ~ N(0, I), (K, *batch, noise_dim)."""

    @abstractmethod
    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """Return the log-density of z, in nats."""

    @property
    @abstractmethod
    def mean(self) -> Tensor:
        """The mean, (*batch, D)."""

    def log_prob_of_all(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws c"]:
        """Return log p_c(z) of every z under each of the C distributions of the batch."""
        return self.log_prob(value.unsqueeze(-2))

    def log_prob_by_level(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "l *b"]:
        """Return the log-density of each level of z given the levels above; their sum is `log_prob`."""
        return self.log_prob(value).unsqueeze(0)

    def provides(self, method: OptionalMethod) -> bool:
        """Return whether an optional method is available."""
        return getattr(type(self), method) is not getattr(LatentDistribution, method)

    def moments(self) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """Return the mean and the standard deviation of each dimension; walks through the latent space ask for them."""
        raise self._not_available("moments")

    def covariance(self) -> Float[Tensor, "*batch d d"]:
        """Return the covariance of z around `mean`, which is exact then; DIP-VAE asks a posterior for it."""
        raise self._not_available("covariance")

    def marginals(self) -> LatentDistribution:
        """Return the factorized distribution with the same marginals; β-TC asks a posterior for it."""
        raise self._not_available("marginals")

    def frozen(self) -> LatentDistribution:
        """Return the same distribution with detached parameters; `stl` and `dreg` ask a posterior for it."""
        raise self._not_available("frozen")

    def select(self, index: Tensor) -> LatentDistribution:
        """Return the distributions of the batch at an index, of its shape; a conditional VampPrior asks for them."""
        raise self._not_available("select")

    def log_prob_by_dimension(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b d"]:
        """Return the D terms of `log_prob`; β-TC and free bits ask for them."""
        raise self._not_available("log_prob_by_dimension")

    def quantiles(self, probability: Float[Tensor, "*draws #d"]) -> Float[Tensor, "*b d"]:
        """Return the quantiles of each dimension; pictures of the latent plane ask for them."""
        raise self._not_available("quantiles")

    def _not_available(self, method: str) -> NotImplementedError:
        return NotImplementedError(f"{type(self).__name__} has no {method}")


def take_rows(values: Float[Tensor, "n *rest"], index: Int[Tensor, "*draws"]) -> Float[Tensor, "*draws *rest"]:
    """Return values[index], whose gradients index_select adds up in one order, however many threads there are."""
    return values.index_select(0, index.flatten()).unflatten(0, index.shape)
