"""Heads that turn a decoder's output into p(x|z), normalized over the data's support."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Annotated, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, Laplace, Normal

from vae_cli.constraints import Count, Described, Positive
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.pixels import (
    Bits,
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Levels,
)

RESIDUAL_WEIGHT = 0.02  # of a batch in the running mean of squared residuals
MIN_VARIANCE = 1e-6

Scale = Annotated[Literal["learned", "per_pixel"] | Positive, Described("learned, per_pixel or a number above 0")]
NormalScale = Annotated[
    Literal["learned", "per_pixel", "residual"] | Positive,
    Described("learned, per_pixel, residual or a number above 0"),
]


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

    def forward(self, output: Tensor) -> Independent:
        return self.independent(ContinuousBernoulli(output))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        low, high = torch.full_like(mean, -50.0), torch.full_like(mean, 50.0)
        for _ in range(40):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class ScaledLikelihood(Likelihood):
    """A density of x around a location μ(z), with a scale that is given, shared or of every value.

    Args:
        shape: of an example.
        scale: a number; `learned`, one for all values that is trained with the weights; `per_pixel`, given by the
            decoder for every value; or, where the class has it, `residual`, the running value of what fits the
            training's residuals, kept with the weights and left alone in evaluation.
    """

    supports = frozenset({"levels256", "unit"})

    def __init__(self, shape: tuple[int, ...], scale: float | str = "learned") -> None:
        super().__init__(shape)
        self.scale = scale
        self.log_scale: Tensor | None
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(()))
        else:
            fixed = torch.tensor(0.0 if isinstance(scale, str) else math.log(scale))
            self.register_buffer("log_scale", None if scale == "per_pixel" else fixed)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (2 if self.scale == "per_pixel" else 1) * self.shape[0], *self.shape[1:]

    def forward(self, output: Tensor) -> Independent:
        if self.log_scale is None:
            loc, raw = output.chunk(2, dim=-len(self.shape))
            return self.independent(self.density(loc, bounded_log_scale(raw).exp()))
        fixed = not isinstance(self.log_scale, nn.Parameter)
        scale = (self.log_scale if fixed else bounded_log_scale(self.log_scale)).exp()
        return self.independent(self.density(output, scale.expand_as(output)))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        scale = self.scale_of(std).clamp(1e-3)
        if self.log_scale is None:
            return torch.cat([mean, scale.clamp(0.02).log()])
        if isinstance(self.scale, str):
            with torch.no_grad():
                self.log_scale.fill_(float(scale.square().mean().sqrt().log()))
        return mean

    @abstractmethod
    def density(self, loc: Tensor, scale: Tensor) -> Distribution:
        """Return the density of every value."""

    @abstractmethod
    def scale_of(self, std: Tensor) -> Tensor:
        """Return the scale of the density with a standard deviation."""


class NormalLikelihood(ScaledLikelihood):
    """p(x|z) = N(x; μ(z), σ²), a density of x on [0, 1] (bytes are divided by 255).

    With `scale=residual` σ² is a running mean of the training's squared residuals, the maximum-likelihood value for
    its images: O. Rybkin, K. Daniilidis and S. Levine, Simple and Effective VAE Training with Calibrated Decoders,
    2021.
    """

    def __init__(self, shape: tuple[int, ...], scale: NormalScale = "learned") -> None:
        super().__init__(shape, scale)

    def density(self, loc: Tensor, scale: Tensor) -> Distribution:
        if self.scale == "residual" and self.training:
            return _Watched(loc, scale, self)
        return Normal(loc, scale, validate_args=False)

    def scale_of(self, std: Tensor) -> Tensor:
        return std

    @property
    def running(self) -> Tensor | None:
        """σ² with `scale=residual`."""
        return (2 * self.log_scale).exp() if self.scale == "residual" and self.log_scale is not None else None

    @running.setter
    @torch.no_grad()
    def running(self, variance: Tensor | None) -> None:
        assert self.log_scale is not None and variance is not None
        self.log_scale.copy_(0.5 * variance.log())

    @torch.no_grad()
    def watch(self, mean_square: Tensor) -> None:
        """Update the running mean with a batch's mean squared residual."""
        assert self.log_scale is not None
        variance = (2 * self.log_scale).exp()
        updated = 0.5 * variance.lerp(mean_square, RESIDUAL_WEIGHT).clamp(MIN_VARIANCE).log()
        self.log_scale.copy_(torch.where(updated.isfinite(), updated, self.log_scale))


class _Watched(Normal):
    """A normal whose `log_prob` reports the residuals to its likelihood."""

    def __init__(self, loc: Tensor, scale: Tensor, likelihood: NormalLikelihood) -> None:
        super().__init__(loc, scale, validate_args=False)
        self.likelihood = likelihood

    def log_prob(self, value: Tensor) -> Tensor:
        self.likelihood.watch((value - self.loc.detach()).square().mean())
        return super().log_prob(value)


class LaplaceLikelihood(ScaledLikelihood):
    """p(x|z) = Laplace(x; μ(z), b), a density of x on [0, 1] (bytes are divided by 255)."""

    def __init__(self, shape: tuple[int, ...], scale: Scale = "learned") -> None:
        super().__init__(shape, scale)

    def density(self, loc: Tensor, scale: Tensor) -> Distribution:
        return Laplace(loc, scale, validate_args=False)

    def scale_of(self, std: Tensor) -> Tensor:
        return std / math.sqrt(2)


class DiscretizedLogisticLikelihood(Likelihood):
    """Probabilities of the 256 levels of 8-bit images: see `DiscretizedLogistic`; the decoder gives μ and log s of
    every value, the latter bounded softly to about [−7, 4]."""

    supports = frozenset({"levels256"})
    discrete = True
    outputs = 2

    def forward(self, output: Tensor) -> Independent:
        loc, raw = self.split(output)
        return self.independent(DiscretizedLogistic(loc, bounded_log_scale(raw)))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        # A logistic's standard deviation is πs/√3.
        log_scale = (std.clamp(0.02) * math.sqrt(3) / math.pi).log()
        return torch.cat([mean, log_scale])


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

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        spread = torch.linspace(-1, 1, self.components) if self.components > 1 else torch.zeros(1)
        loc = mean + spread.reshape(-1, *[1] * mean.dim()) * std
        log_scale = (std.clamp(0.02) * math.sqrt(3) / math.pi).log().expand_as(loc)
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
        log_scale = (std.clamp(0.02) * math.sqrt(3) / math.pi).log()
        levels = torch.linspace(0, 1, self.outputs).reshape(-1, *[1] * mean.dim()).to(mean)
        return DiscretizedLogistic(mean, log_scale).log_prob(levels).clamp(min=-20).flatten(0, 1)
