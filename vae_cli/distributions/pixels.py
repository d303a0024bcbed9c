"""Distributions of one value that torch lacks, or has in a form that is not exact in the tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.distributions import Categorical, Distribution, Independent, constraints
from torch.nn.functional import logsigmoid

SERIES = 1 / 16  # a logit below which its terms cancel, and a series is exact
FACTORS = 8  # values whose factors are multiplied before a logarithm is taken


class _ContinuousBernoulliLogProb(torch.autograd.Function):
    r"""Σ_i [ η_i x_i − max(η_i, 0) − log r_i ],   r = (1 − e^{−|η|}) / |η|,   with the gradient x − E[x] in η.

    The forward pass makes the gradient too, from the same exponential. The logarithm is taken of products of a few r.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, value: Tensor, dims: int) -> Tensor:
        size = logits.abs().clamp_(min=torch.finfo(logits.dtype).tiny)  # r is 1 at 0
        mass = size.neg().expm1_().neg_()
        total = _sum_last((logits * value).sub_(logits.clamp(min=0)), dims).sub_(_log_of_factors(mass / size, dims))
        ctx.dims = dims
        of_logits, of_value = ctx.needs_input_grad[:2]
        residual = torch.sub(value, _centered_mean(logits, size, mass)).sub_(0.5) if of_logits else None
        ctx.save_for_backward(residual, logits if of_value else None)
        ctx.shapes = logits.shape, value.shape
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        of_each = gradient.reshape(gradient.shape + (1,) * ctx.dims)
        slopes = [None if slope is None else slope * of_each for slope in ctx.saved_tensors]
        of_logits, of_value = (None if s is None else s.sum_to_size(shape) for s, shape in zip(slopes, ctx.shapes))
        return of_logits, of_value, None


def _centered_mean(logits: Tensor, size: Tensor, mass: Tensor) -> Tensor:
    """Return E[x] − ½ = sign(η) (1/mass − 1/|η| − ½), by a series where these cancel."""
    exact = mass.reciprocal().sub_(size.reciprocal()).sub_(0.5).copysign_(logits)
    near = logits.clamp(-1, 1)  # or the series of a large logit overflows
    square = near.square()
    series = square.mul(1 / 30240).sub_(1 / 720).mul_(square).add_(1 / 12).mul_(near)
    # On a CPU torch.where takes ten times as long where neither case is rare.
    return torch.lerp(series, exact, (square >= SERIES**2).to(exact.dtype))


def _sum_last(values: Tensor, dims: int) -> Tensor:
    return values.flatten(-dims).sum(-1) if dims else values


def _log_of_factors(factors: Tensor, dims: int) -> Tensor:
    """Return the sum of the logarithms of factors (*batch, *shape) of at most 1."""
    if dims and factors.is_cpu and not torch.compiler.is_compiling():
        products = _products(factors, dims)
        if products.numel() and products.amin() >= torch.finfo(factors.dtype).tiny:
            return products.log_().sum(-1)
    return _sum_last(factors.log(), dims)


class _BitsLogProb(torch.autograd.Function):
    r"""−Σ_i log(1 + e^{m_i}),   m_i = (1 − 2 x_i) η_i,   with the gradient x − σ(η).

    A decoder's output is the largest tensor of a step: this makes two of its size where the same from torch's parts
    makes nine, and takes the logarithm of products of a few values' factors instead of one for every value. In float32
    a value is exact to 6·10⁻⁸ nats.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bits: Tensor, dims: int) -> Tensor:
        ctx.save_for_backward(logits, bits)
        ctx.dims = dims
        if logits.is_cpu and not torch.compiler.is_compiling():
            products = _products(torch.addcmul(logits, logits, bits, value=-2).exp_().add_(1), dims)
            if products.numel() and products.amax() <= torch.finfo(logits.dtype).max:
                return products.log_().sum(-1).neg_()
        return _far_log_prob(logits, bits, dims)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        logits, bits = ctx.saved_tensors
        residual = logits.sigmoid()
        torch.sub(bits, residual, out=residual)
        return residual.mul_(gradient.reshape(*gradient.shape, *[1] * ctx.dims)), None, None


def _products(factors: Tensor, dims: int) -> Tensor:
    """Multiply factors (*batch, *shape) a few at a time."""
    flat = factors.flatten(-dims)
    return flat.unflatten(-1, (math.gcd(flat.shape[-1], FACTORS), -1)).prod(-2)


def _far_log_prob(logits: Tensor, bits: Tensor, dims: int) -> Tensor:
    """Return the sum as −Σ_i [ max(m_i, 0) + log(1 + e^{−|m_i|}) ], for products that overflow."""
    margin = torch.addcmul(logits, logits, bits, value=-2)
    total = margin.clamp(min=0).flatten(-dims).sum(-1)
    # Beyond −80 the exponential adds nothing, and a processor is slow at numbers that small.
    factors = margin.abs_().neg_().clamp_(min=-80).exp_().add_(1)
    return total.add_(_products(factors, dims).log_().sum(-1)).neg_()


class Bits(Distribution):
    """Independent Bernoulli variables; `log_prob` is of values that are 0 or 1.

    Args:
        logits: η, (*batch, *shape).
        dims: number of dimensions of the shape.
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.boolean

    def __init__(self, logits: Tensor, dims: int) -> None:
        self.logits, self.dims = logits, dims
        super().__init__(logits.shape[:-dims], logits.shape[-dims:], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-probability in nats, summed over the shape."""
        logits, dims = self.logits, self.dims
        if value.dim() > logits.dim() or value.shape[:-dims] != logits.shape[-value.dim() : -dims]:
            logits = logits.expand(torch.broadcast_shapes(logits.shape, value.shape))
        return _BitsLogProb.apply(logits, value.to(logits.dtype), dims)

    @property
    def mean(self) -> Tensor:
        return self.logits.sigmoid()

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return torch.bernoulli(self.mean.expand(self._extended_shape(torch.Size(sample_shape))))


class ContinuousBernoulli(Distribution):
    r"""A density on [0, 1] with the Bernoulli's logit η as its natural parameter:

        log p(x) = η x − log ∫₀¹ e^{η t} dt = η (x − ½) − log( sinh(η/2) / (η/2) )

    G. Loaiza-Ganem and J. P. Cunningham, The continuous Bernoulli, 2019.

    Args:
        logits: η, of the batch shape.
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor, dims: int = 0) -> Tensor:
        """Return the log-density in nats, summed over the last `dims` dimensions, which logits and value share."""
        return _ContinuousBernoulliLogProb.apply(self.logits, value.to(self.logits.dtype), dims)

    @property
    def mean(self) -> Tensor:
        """½ + ½ coth(η/2) − 1/η, which is 1/(1 − e^{−η}) − 1/η."""
        small = self.logits.abs() < SERIES
        safe = torch.where(small, torch.ones_like(self.logits), self.logits)
        near = self.logits.clamp(-1, 1)  # or the series of a large logit overflows
        series = 0.5 + near / 12 - near.pow(3) / 720 + near.pow(5) / 30240
        return torch.where(small, series, 0.5 / torch.tanh(safe / 2) - 1 / safe + 0.5)

    def icdf(self, value: Tensor) -> Tensor:
        """Return the x with ∫₀ˣ p = u: log(1 + u (e^η − 1)) / η, computed from the side where nothing overflows."""
        eta = self.logits.abs()
        u = torch.where(self.logits < 0, value, 1 - value)
        small = eta < 1e-4
        safe = torch.where(small, torch.ones_like(eta), eta)
        # For a negative logit −η: x = −log(1 − u (1 − e^{−η})) / η; a positive one is its mirror image.
        x = torch.where(small, u - eta * u * (1 - u) / 2, -torch.log1p(u * torch.expm1(-safe)) / safe).clamp(0, 1)
        return torch.where(self.logits < 0, x, 1 - x)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        return self.icdf(torch.rand(shape, dtype=self.logits.dtype, device=self.logits.device))


class ContinuousBits(Independent):
    """Independent variables with continuous Bernoulli densities, whose logarithms are summed in one go.

    Args:
        logits: η, (*batch, *shape).
        dims: number of dimensions of the shape.
    """

    def __init__(self, logits: Tensor, dims: int) -> None:
        super().__init__(ContinuousBernoulli(logits), dims, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        assert value.shape[-self.reinterpreted_batch_ndims :] == self.event_shape
        return self.base_dist.log_prob(value, self.reinterpreted_batch_ndims)


class DiscretizedLogistic(Distribution):
    r"""The probability that a logistic variable, rounded to the nearest of `levels` values k/(levels−1) and with
    both tails counted to the outermost ones, falls on x:

        p(x) = σ((x + h − μ)/s) − σ((x − h − μ)/s),    h = 1 / (2 (levels − 1))

    with the second term 0 at x = 0 and the first 1 at x = 1. The difference is taken as
    σ(b) − σ(a) = σ(b) σ(−a) (1 − e^{a−b}), exact in both tails.

    D. P. Kingma et al., Improving Variational Inference with Inverse Autoregressive Flow, 2016.

    Args:
        loc: μ, of the batch shape.
        log_scale: log s, of the batch shape or one that broadcasts to it.
        levels: number of values.
    """

    arg_constraints = {"loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval

    def __init__(self, loc: Tensor, log_scale: Tensor, levels: int = 256) -> None:
        self.loc, self.log_scale, self.levels = loc, log_scale, levels
        self.half_step = 0.5 / (levels - 1)
        super().__init__(loc.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        inverse_scale = torch.exp(-self.log_scale)
        centered = (value - self.loc) * inverse_scale
        half = self.half_step * inverse_scale
        below_top = value < 1 - self.half_step
        above_bottom = value > self.half_step
        upper = torch.where(below_top, logsigmoid(centered + half), 0)
        lower = torch.where(above_bottom, logsigmoid(half - centered), 0)
        width = torch.where(below_top & above_bottom, torch.log(-torch.expm1(-2 * half)), 0)
        return upper + lower + width

    @property
    def mean(self) -> Tensor:
        """Σ_k P(x ≥ k/(levels−1)) / (levels−1), exactly: rounding and tails included."""
        inverse_scale = torch.exp(-self.log_scale)
        total = torch.zeros_like(self.loc)
        for k in range(1, self.levels):
            threshold = (k - 0.5) / (self.levels - 1)
            total += torch.sigmoid((self.loc - threshold) * inverse_scale)
        return total / (self.levels - 1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        tiny = torch.finfo(self.loc.dtype).tiny
        u = torch.rand(shape, dtype=self.loc.dtype, device=self.loc.device).clamp(tiny)
        x = self.loc + self.log_scale.exp() * torch.logit(u)
        return x.mul(self.levels - 1).round().clamp(0, self.levels - 1) / (self.levels - 1)


class DiscretizedLogisticMixture(Distribution):
    """Σ_k π_k p_k(x) of discretized logistics p_k.

    Args:
        logits: of π, (*batch, components).
        loc: μ, (*batch, components).
        log_scale: log s, (*batch, components).
    """

    arg_constraints = {"logits": constraints.real, "loc": constraints.real, "log_scale": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor, loc: Tensor, log_scale: Tensor) -> None:
        self.logits = logits.log_softmax(-1)
        self.loc, self.log_scale = loc, log_scale
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        each = DiscretizedLogistic(self.loc, self.log_scale).log_prob(value.unsqueeze(-1))
        return (self.logits + each).logsumexp(-1)

    @property
    def mean(self) -> Tensor:
        return (self.logits.exp() * DiscretizedLogistic(self.loc, self.log_scale).mean).sum(-1)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        chosen = Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape)).unsqueeze(-1)
        full = (*sample_shape, *self.loc.shape)
        loc, log_scale = (v.expand(full).gather(-1, chosen).squeeze(-1) for v in (self.loc, self.log_scale))
        return DiscretizedLogistic(loc, log_scale).sample()


class Levels(Distribution):
    """Any probabilities of the values k / (levels − 1).

    Args:
        logits: (*batch, levels).
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.unit_interval

    def __init__(self, logits: Tensor) -> None:
        self.logits, self.top = logits.log_softmax(-1), logits.shape[-1] - 1
        super().__init__(logits.shape[:-1], validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        level = (value * self.top).round().long().clamp(0, self.top)
        logits = self.logits.expand(*torch.broadcast_shapes(level.shape, self.batch_shape), self.top + 1)
        return logits.gather(-1, level.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)

    @property
    def mean(self) -> Tensor:
        return self.logits.exp() @ torch.linspace(0, 1, self.top + 1).to(self.logits)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        drawn = Categorical(logits=self.logits, validate_args=False).sample(torch.Size(sample_shape))
        return drawn.to(self.logits) / self.top
