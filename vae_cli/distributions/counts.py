"""Distributions over counts 0, 1, 2 …, by the logarithms of their means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid, softplus

FROM = 16.0  # the argument from which log Γ is its asymptotic series


class Poisson(Distribution):
    """p(x) = e^{−μ} μˣ / x!

    Args:
        log_mean: log μ, of the batch shape.
    """

    arg_constraints = {"log_mean": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor) -> None:
        self.log_mean = log_mean
        super().__init__(log_mean.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return times_log(value, self.log_mean) - self.log_mean.exp() - torch.lgamma(value + 1)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return torch.poisson(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))


class NegativeBinomial(Distribution):
    r"""A Poisson variable whose rate is a gamma variable of mean μ and shape θ:

        p(x) = Γ(x + θ) / (Γ(θ) x!) (θ / (θ + μ))^θ (μ / (θ + μ))ˣ,   variance μ + μ² / θ

    Args:
        log_mean: log μ, of the batch shape.
        log_shape: log θ, of the batch shape; a large θ is nearly a Poisson variable.
    """

    arg_constraints = {"log_mean": constraints.real, "log_shape": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, log_mean: Tensor, log_shape: Tensor) -> None:
        self.log_mean, self.log_shape = torch.broadcast_tensors(log_mean, log_shape)
        super().__init__(self.log_mean.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        odds, shape = self.log_mean - self.log_shape, self.log_shape.exp()
        of_x = times_log(value, -softplus(-odds)) - torch.lgamma(value + 1)
        return log_rising(shape, value) - shape * softplus(odds) + of_x

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        full = self._extended_shape(torch.Size(sample_shape))
        shape = self.log_shape.exp().expand(full).double()  # a small shape draws numbers too small for float32
        rate = torch.distributions.Gamma(shape, shape, validate_args=False).sample() * self.mean
        return torch.poisson(rate).to(self.log_mean.dtype)


class ZeroInflated(Distribution):
    """p(x) = π [x = 0] + (1 − π) p₀(x).

    Args:
        counts: p₀.
        gate: logits of π, of the counts' batch shape.
    """

    arg_constraints = {"gate": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(self, counts: Distribution, gate: Tensor) -> None:
        self.counts, self.gate = counts, gate
        super().__init__(gate.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        of_counts = logsigmoid(-self.gate) + self.counts.log_prob(value)
        return torch.where(value == 0, torch.logaddexp(logsigmoid(self.gate), of_counts), of_counts)

    @property
    def mean(self) -> Tensor:
        return torch.sigmoid(-self.gate) * self.counts.mean

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        full = self._extended_shape(torch.Size(sample_shape))
        kept = torch.bernoulli(torch.sigmoid(-self.gate).expand(full))
        return kept * self.counts.sample(torch.Size(sample_shape))


class GivenTotal(Distribution):
    """Counts given their total n, a fact about an example that is not predicted: each has the mean n s, s its share.

    Args:
        log_share: log s, (*batch, *shape), whose sum over the shape is 1.
        counts: from log-means to the distributions of the counts.
        dims: number of dimensions of the shape.
        usual: log n of the examples that are drawn.
    """

    arg_constraints = {"log_share": constraints.real}
    support = constraints.nonnegative_integer

    def __init__(
        self, log_share: Tensor, counts: Callable[[Tensor], Distribution], dims: int, usual: Tensor | float
    ) -> None:
        self.log_share, self.counts, self.dims, self.usual = log_share, counts, dims, usual
        super().__init__(log_share.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        total = value.sum(tuple(range(-self.dims, 0)), keepdim=True)
        # Of an example without any counts each has the mean 0, and 0 is certain.
        log_p = self.counts(self.log_share + total.clamp(min=1).log()).log_prob(value)
        return torch.where(total > 0, log_p, 0)

    @property
    def mean(self) -> Tensor:
        return self.counts(self.log_share + self.usual).mean

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self.counts(self.log_share + self.usual).sample(sample_shape)


def times_log(value: Tensor, log: Tensor) -> Tensor:
    """Return value · log, and 0 where value is 0 whatever the logarithm is."""
    return torch.where(value == 0, 0, value * log)


def log_rising(start: Tensor, steps: Tensor) -> Tensor:
    """Return log Γ(a + x) − log Γ(a) for a > 0 and x ≥ 0, without the loss of digits of that difference for a large a.

    From a = 16 on both have Stirling's series with three terms, whose error is below 10⁻⁹, and what they share cancels:
    x log a + (a + x − ½) log(1 + x / a) − x + r(a + x) − r(a), r(a) = 1/(12 a) − 1/(360 a³) + 1/(1260 a⁵).
    """
    large = start.clamp(min=FROM)
    ended = large + steps
    far = torch.xlogy(steps, large) + (ended - 0.5) * torch.log1p(steps / large) - steps
    far = far + _remainder(ended) - _remainder(large)
    small = start.clamp(max=FROM)
    return torch.where(start < FROM, torch.lgamma(small + steps) - torch.lgamma(small), far)


def _remainder(value: Tensor) -> Tensor:
    inverse = 1 / value
    square = inverse.square()
    return inverse * (1 / 12 - square * (1 / 360 - square / 1260))


def log_shape_of(mean: Tensor, variance: Tensor, least: float, most: float) -> Tensor:
    """Return log θ of the negative binomial with these moments, between two bounds."""
    excess = (variance - mean).clamp(min=1e-12)
    return (2 * mean.clamp(min=1e-6).log() - excess.log()).clamp(math.log(least), math.log(most))
