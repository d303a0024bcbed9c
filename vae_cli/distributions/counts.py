"""Distributions over counts 0, 1, 2 …, by the logarithms of their means."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Distribution, constraints
from torch.nn.functional import logsigmoid, softplus

FROM = 16.0  # the argument from which log Γ is its asymptotic series
LEAST_TOTAL = 1e-6  # of an example without any counts


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
        """Return x log μ − μ − log x!; from 16 on x (t + e^{−t} − 1) + ½ log 2πx + r(x) below 0, t = log (x / μ), which
        loses no digits where x and μ are large."""
        few, many = value.clamp(max=FROM), value.clamp(min=FROM)
        of_few = few * self.log_mean - self.log_mean.exp() - torch.lgamma(few + 1)
        t = many.log() - self.log_mean
        of_many = -many * (t + torch.expm1(-t)) - 0.5 * (2 * math.pi * many).log() - _remainder(many)
        return torch.where(value < FROM, of_few, of_many)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean

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
        return log_ways(shape, value) - shape * softplus(odds) - value * softplus(-odds)

    @property
    def mean(self) -> Tensor:
        return self.log_mean.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean + self.mean.square() / self.log_shape.exp()

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

    @property
    def variance(self) -> Tensor:
        kept, mean = torch.sigmoid(-self.gate), self.counts.mean
        return kept * (self.counts.variance + (1 - kept) * mean.square())

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

    def of(self, x: Tensor) -> Distribution:
        """Return the distribution of the counts of examples with the totals of x, in which missing counts are NaN: of
        these examples n is the total of what is observed, and s its share of that."""
        dims = tuple(range(-self.dims, 0))
        log_total = x.nansum(dims, keepdim=True).clamp(min=LEAST_TOTAL).log()
        log_observed = self.log_share.masked_fill(x.isnan(), -math.inf).logsumexp(dims, keepdim=True)
        return self.counts(self.log_share - log_observed + log_total)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return log p(x|n) of each count; NaN is a missing one, whose own number here says nothing."""
        log_p = self.of(value).log_prob(value.nan_to_num(0))
        # Of an example without any counts each has the mean 0, and 0 is certain.
        return torch.where(value.nansum(tuple(range(-self.dims, 0)), keepdim=True) > 0, log_p, 0)

    @property
    def mean(self) -> Tensor:
        return self.counts(self.log_share + self.usual).mean

    @property
    def variance(self) -> Tensor:
        return self.counts(self.log_share + self.usual).variance

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self.counts(self.log_share + self.usual).sample(sample_shape)


def log_ways(shape: Tensor, value: Tensor) -> Tensor:
    """Return log Γ(x + θ) − log Γ(θ) − log x! without the loss of digits of these differences for a large x or θ.

    From x = 16 on log Γ(x + θ) and log x! have Stirling's series, and what they share cancels: x log(1 + θ / x) +
    (θ − ½) log(x + θ) − θ − ½ log x + r(x + θ) − r(x) − log Γ(θ), r(a) = 1/(12 a) − 1/(360 a³) + 1/(1260 a⁵); from
    θ = 16 on log Γ(θ) has it too.
    """
    few, many = value.clamp(max=FROM), value.clamp(min=FROM)
    small, large = shape.clamp(max=FROM), shape.clamp(min=FROM)
    ended, half_log = many + shape, 0.5 * many.log()
    shared = many * torch.log1p(shape / many) - half_log + _remainder(ended) - _remainder(many)
    of_small = (small - 0.5) * ended.log() - small - torch.lgamma(small)
    of_large = (large - 0.5) * torch.log1p(many / large) - 0.5 * math.log(2 * math.pi) - _remainder(large)
    of_many = shared + torch.where(shape < FROM, of_small, of_large)
    return torch.where(value < FROM, log_rising(shape, few) - torch.lgamma(few + 1), of_many)


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
