"""Heads that turn a decoder's output into p(x|z), normalized over the data's support."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, Normal, StudentT

from vae_cli.constraints import Count, Described, Positive, Range
from vae_cli.distributions.bounded import bounded_log_scale, is_beyond
from vae_cli.distributions.pixels import (
    Bits,
    ContinuousBernoulli,
    ContinuousBits,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Levels,
)

RESIDUAL_WEIGHT = 0.02  # of a batch in the running mean of squared residuals
MIN_VARIANCE = 1e-6
STARTING_DEGREES = 10.0  # of freedom of a Student's t
NARROWEST = 0.02  # standard deviation that a learned scale starts from

Scale = Annotated[
    Literal["learned", "per_position", "per_pixel"] | Positive,
    Described("learned, per_position, per_pixel or a number above 0", ("learned", "per_position", "per_pixel")),
]
NormalScale = Annotated[
    Literal["learned", "per_position", "per_pixel", "residual"] | Positive,
    Described(
        "learned, per_position, per_pixel, residual or a number above 0",
        ("learned", "per_position", "per_pixel", "residual"),
    ),
]


AboveTwo = Annotated[float, Range(2, math.inf, open_low=True), Described("a number above 2")]


class Likelihood(nn.Module, ABC):
    """From a decoder's output (*batch, outputs · C, …) to a distribution over examples (*batch, C, …).

    Args:
        shape: (C, …) of an example: (C, H, W) of an image, (D,) of a vector, (C, L) of a sequence.

    Attributes:
        outputs: how many numbers the decoder gives per value of an example.
        supports: the supports of data it is a distribution over.
        discrete: its log-probabilities are of levels, not densities.
        running: a running mean over the training's images where it keeps one, which several processes average.
    """

    outputs: ClassVar[int] = 1
    supports: ClassVar[frozenset[str]]
    discrete: ClassVar[bool] = False
    running: Tensor | None = None

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.shape = tuple(shape)

    @property
    def output_shape(self) -> tuple[int, ...]:
        """The shape that the decoder must give."""
        return self.outputs * self.shape[0], *self.shape[1:]

    @abstractmethod
    def forward(self, output: Tensor) -> Distribution:
        """Return p(x|z)."""

    @abstractmethod
    def start_at(self, mean: Float[Tensor, "*shape"], std: Float[Tensor, "*shape"]) -> Float[Tensor, "*out_shape"]:
        """Return the decoder's output that describes data of this mean and standard deviation.

        A likelihood with parameters of its own sets them accordingly.
        """

    def image(self, p: Distribution) -> Float[Tensor, "*batch_shape"]:
        """Return the example that stands for p(x|z) where one is shown: its mean."""
        return p.mean

    def scale_at_bound(self, p: Distribution) -> float:
        """Return the part of the values of p(x|z) whose learned scale is as small or as large as it may be."""
        return 0.0

    def split(self, output: Tensor) -> tuple[Tensor, ...]:
        """Split a decoder's output into a tensor (*batch, *shape) per parameter."""
        return output.chunk(self.outputs, dim=-len(self.shape))

    def independent(self, values: Distribution) -> Independent:
        """Join the distributions (*batch, *shape) of independent values."""
        return Independent(values, len(self.shape), validate_args=False)


class BernoulliLikelihood(Likelihood):
    """p(x|z) = Π_i p_i^{x_i} (1 − p_i)^{1 − x_i} for x in {0, 1}; the decoder gives the logits of p."""

    supports = frozenset({"binary"})
    discrete = True

    def forward(self, output: Tensor) -> Bits:
        return Bits(output, len(self.shape))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3))


class ContinuousBernoulliLikelihood(Likelihood):
    """A density on [0, 1]: see `ContinuousBernoulli`; the decoder gives the logits."""

    supports = frozenset({"levels256", "unit"})

    def forward(self, output: Tensor) -> ContinuousBits:
        return ContinuousBits(output, len(self.shape))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        low, high = torch.full_like(mean, -50.0), torch.full_like(mean, 50.0)
        for _ in range(40):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class ScaledLikelihood(Likelihood):
    """Independent values around a location that the decoder gives, with a scale.

    Args:
        shape: of an example.
        scale: a number; `learned`, one for all values, trained with the weights; `per_position`, one for every place
            in an example, trained with the weights; `per_pixel`, given by the decoder for every value; or, where the
            class has it, `residual`, what fits the training's residuals. What is learned starts at the spread around
            the mean example. O. Rybkin, K. Daniilidis and S. Levine, Simple and Effective VAE Training with
            Calibrated Decoders, 2021, compare them.
    """

    supports = frozenset({"levels256", "unit", "real"})
    unit_std: ClassVar[float]  # standard deviation at a scale of 1

    def __init__(self, shape: tuple[int, ...], scale: float | str = "learned") -> None:
        super().__init__(shape)
        self.scale = scale
        self.raw_scale: Tensor | None
        if scale in ("learned", "per_position"):
            self.raw_scale = nn.Parameter(torch.zeros(shape if scale == "per_position" else ()))
        else:
            fixed = torch.tensor(0.0 if isinstance(scale, str) else math.log(scale))
            self.register_buffer("raw_scale", None if scale == "per_pixel" else fixed)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (2 if self.scale == "per_pixel" else 1) * self.shape[0], *self.shape[1:]

    @property
    def log_scale(self) -> Tensor | None:
        """The logarithm of the scale, of every value or for all; None where the decoder gives it."""
        if isinstance(self.raw_scale, nn.Parameter):
            return bounded_log_scale(self.raw_scale)
        return self.raw_scale

    def forward(self, output: Tensor) -> Independent:
        log_scale = self.log_scale
        if log_scale is None:
            output, raw = output.chunk(2, dim=-len(self.shape))
            log_scale = bounded_log_scale(raw)
        return self.independent(self.around(output, log_scale))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        log_scale = (std.clamp(NARROWEST) / self.unit_std).log()
        if self.raw_scale is None:
            return torch.cat([mean, log_scale])
        if isinstance(self.scale, str):
            shared = (std.square().mean().sqrt().clamp(NARROWEST) / self.unit_std).log()
            with torch.no_grad():
                self.raw_scale.copy_(log_scale if self.scale == "per_position" else shared)
        return mean

    def scale_at_bound(self, p: Distribution) -> float:
        assert isinstance(p, Independent)
        log_scale = self.log_scale_of(p.base_dist)
        is_free = self.raw_scale is None or isinstance(self.raw_scale, nn.Parameter)
        return float(is_beyond(log_scale).float().mean()) if is_free else 0.0

    def log_scale_of(self, p: Any) -> Tensor:
        """Return the logarithm of every value's scale."""
        return p.scale.log()

    @abstractmethod
    def around(self, loc: Tensor, log_scale: Tensor) -> Distribution:
        """Return the distribution of every value around its location."""


class NormalLikelihood(ScaledLikelihood):
    """p(x|z) = N(x; μ(z), σ²), a density of x on ℝ; pixels are in [0, 1] (bytes are divided by 255).

    It is normalized on ℝ, so pixels leave Φ(−μ/σ) + Φ(−(1 − μ)/σ) of its mass outside [0, 1]: at μ = 0 a half and more.

    With `scale=residual` σ² is the mean squared residual of training images, its maximum-likelihood value: a running
    mean during an epoch, and at its end that of the weights as they are then. It is kept with the weights.
    """

    unit_std = 1.0

    def __init__(self, shape: tuple[int, ...], scale: NormalScale = "learned") -> None:
        super().__init__(shape, scale)

    def around(self, loc: Tensor, log_scale: Tensor) -> Distribution:
        scale = log_scale.exp().expand_as(loc)
        if self.scale == "residual" and self.training:
            return _Watched(loc, scale, self)
        return Normal(loc, scale, validate_args=False)

    @property
    def running(self) -> Tensor | None:
        """σ² with `scale=residual`."""
        return (2 * self.raw_scale).exp() if self.scale == "residual" and self.raw_scale is not None else None

    @running.setter
    @torch.no_grad()
    def running(self, variance: Tensor | None) -> None:
        assert self.raw_scale is not None and variance is not None
        log_scale = 0.5 * variance.clamp(MIN_VARIANCE).log()
        self.raw_scale.copy_(torch.where(log_scale.isfinite(), log_scale, self.raw_scale))


class _Watched(Normal):
    """A normal whose `log_prob` updates its likelihood's running mean with a batch's mean squared residual."""

    def __init__(self, loc: Tensor, scale: Tensor, likelihood: NormalLikelihood) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.likelihood = likelihood

    def log_prob(self, value: Tensor) -> Tensor:
        variance = self.likelihood.running
        assert variance is not None
        self.likelihood.running = variance.lerp((value - self.loc.detach()).square().mean(), RESIDUAL_WEIGHT)
        return super().log_prob(value)


class LaplaceLikelihood(ScaledLikelihood):
    """p(x|z) = Laplace(x; μ(z), b), a density of x on ℝ; pixels are in [0, 1] (bytes are divided by 255).

    It is normalized on ℝ, so pixels leave ½ (e^(−μ/b) + e^(−(1 − μ)/b)) of its mass outside [0, 1], for μ in [0, 1].
    """

    unit_std = math.sqrt(2)

    def __init__(self, shape: tuple[int, ...], scale: Scale = "learned") -> None:
        super().__init__(shape, scale)

    def around(self, loc: Tensor, log_scale: Tensor) -> Distribution:
        return Laplace(loc, log_scale.exp().expand_as(loc), validate_args=False)


class StudentTLikelihood(ScaledLikelihood):
    """p(x|z) = StudentT(x; ν, μ(z), s), with tails that a few outliers do not move.

    Args:
        shape: of an example.
        scale: as of `NormalLikelihood`.
        degrees: ν, a number above 2; or `learned`, one for all values.
    """

    supports = frozenset({"real"})
    unit_std = 1.0

    def __init__(
        self, shape: tuple[int, ...], scale: Scale = "learned", degrees: Literal["learned"] | AboveTwo = "learned"
    ) -> None:
        super().__init__(shape, scale)
        start = torch.tensor(math.log(STARTING_DEGREES - 2))
        if degrees == "learned":
            self.raw_degrees: Tensor = nn.Parameter(start)
        else:
            assert not isinstance(degrees, str)
            self.register_buffer("raw_degrees", torch.tensor(math.log(degrees - 2)))

    def around(self, loc: Tensor, log_scale: Tensor) -> Distribution:
        raw = self.raw_degrees
        degrees = (2 + (bounded_log_scale(raw) if isinstance(raw, nn.Parameter) else raw).exp()).expand_as(loc)
        return StudentT(degrees, loc, log_scale.exp().expand_as(loc), validate_args=False)


class DiscretizedLogisticLikelihood(ScaledLikelihood):
    """Probabilities of the 256 levels of 8-bit images: see `DiscretizedLogistic`; the decoder gives μ.

    A scale that it gives for every pixel too is bounded softly to about [−7, 4] in its logarithm. Such a scale fits
    more pixels, and explains away what is hard to predict: pictures turn gray before they turn right.
    """

    supports = frozenset({"levels256"})
    discrete = True
    unit_std = math.pi / math.sqrt(3)

    def __init__(self, shape: tuple[int, ...], scale: Scale = "learned") -> None:
        super().__init__(shape, scale)

    def around(self, loc: Tensor, log_scale: Tensor) -> Distribution:
        return DiscretizedLogistic(loc, log_scale)

    def log_scale_of(self, p: Any) -> Tensor:
        return p.log_scale

    def image(self, p: Distribution) -> Tensor:
        """Return the median of every value, which is its location on [0, 1].

        The mean of a wide logistic whose tails count to the outermost levels is gray.
        """
        assert isinstance(p, Independent)
        return p.base_dist.loc.clamp(0, 1)


class DiscretizedLogisticMixtureLikelihood(Likelihood):
    """Probabilities of the 256 levels: a mixture of `DiscretizedLogistic` for every value.

    T. Salimans et al., PixelCNN++, 2017, without its coupling of the colors.

    Args:
        shape: of an example.
        components: number of logistics.
    """

    supports = frozenset({"levels256"})
    discrete = True

    def __init__(self, shape: tuple[int, ...], components: Count = 5) -> None:
        super().__init__(shape)
        self.components = components

    @property
    def output_shape(self) -> tuple[int, ...]:
        return 3 * self.components * self.shape[0], *self.shape[1:]

    def forward(self, output: Tensor) -> Independent:
        first = -len(self.shape)
        parts = output.unflatten(first, (3, self.components, self.shape[0]))
        logits, loc, raw = (part.movedim(first - 1, -1) for part in parts.unbind(first - 2))
        return self.independent(DiscretizedLogisticMixture(logits, loc, bounded_log_scale(raw)))

    def image(self, p: Distribution) -> Tensor:
        """Return the mean of the components' locations on [0, 1], by their weights: a wide logistic's mean is gray."""
        assert isinstance(p, Independent)
        return (p.base_dist.logits.exp() * p.base_dist.loc.clamp(0, 1)).sum(-1)

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        spread = torch.linspace(-1, 1, self.components) if self.components > 1 else torch.zeros(1)
        loc = mean + spread.reshape(-1, *[1] * mean.dim()) * std
        log_scale = (std.clamp(NARROWEST) / DiscretizedLogisticLikelihood.unit_std).log().expand_as(loc)
        return torch.stack([torch.zeros_like(loc), loc, log_scale]).flatten(0, 2)


class CategoricalLikelihood(Likelihood):
    """Probabilities of the 256 levels, each with a logit of its own that the decoder gives."""

    supports = frozenset({"levels256"})
    discrete = True
    outputs = 256

    def forward(self, output: Tensor) -> Independent:
        first = -len(self.shape)
        logits = output.unflatten(first, (self.outputs, self.shape[0])).movedim(first - 1, -1)
        return self.independent(Levels(logits))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        log_scale = (std.clamp(NARROWEST) / DiscretizedLogisticLikelihood.unit_std).log()
        levels = torch.linspace(0, 1, self.outputs).reshape(-1, *[1] * mean.dim()).to(mean)
        return DiscretizedLogistic(mean, log_scale).log_prob(levels).clamp(min=-20).flatten(0, 1)
