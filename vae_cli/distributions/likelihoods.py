"""Heads that turn a decoder's output into p(x|z), normalized over the images' support."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, Normal

from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic
from vae_cli.errors import ConfigError


class Likelihood(nn.Module, ABC):
    """From a decoder's output (*batch, outputs · C, H, W) to a distribution over images (*batch, C, H, W).

    Args:
        shape: (C, H, W) of the images.

    Attributes:
        outputs: how many numbers the decoder gives per value of an image.
        supports: the supports of data it is a distribution over.
        discrete: its log-probabilities are of levels, not densities.
    """

    outputs: ClassVar[int] = 1
    supports: ClassVar[frozenset[str]]
    discrete: ClassVar[bool] = False

    def __init__(self, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.shape = shape

    @property
    def output_shape(self) -> tuple[int, int, int]:
        """(C', H, W) that the decoder must give."""
        channels, height, width = self.shape
        return self.outputs * channels, height, width

    @abstractmethod
    def forward(self, output: Tensor) -> Distribution: ...

    @abstractmethod
    def start_at(self, mean: Float[Tensor, "c h w"], std: Float[Tensor, "c h w"]) -> Float[Tensor, "cc h w"]:
        """The decoder's output, of `output_shape`, that describes images of this mean and standard deviation.

        A likelihood with parameters of its own sets them alike.
        """

    def split(self, output: Float[Tensor, "*batch cc h w"]) -> tuple[Tensor, ...]:
        """One tensor (*batch, C, H, W) per parameter."""
        return output.chunk(self.outputs, dim=-3)


def _images(pixels: Distribution) -> Independent:
    return Independent(pixels, 3, validate_args=False)


class BernoulliLikelihood(Likelihood):
    """p(x|z) = Π_i p_i^{x_i} (1 − p_i)^{1 − x_i} for x in {0, 1}; the decoder gives the logits of p."""

    supports = frozenset({"binary"})
    discrete = True

    def forward(self, output: Tensor) -> Independent:
        return _images(Bernoulli(logits=output, validate_args=False))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        return torch.logit(mean.clamp(1e-3, 1 - 1e-3))


class ContinuousBernoulliLikelihood(Likelihood):
    """A density on [0, 1]: see `ContinuousBernoulli`; the decoder gives the logits."""

    supports = frozenset({"levels256", "unit"})

    def forward(self, output: Tensor) -> Independent:
        return _images(ContinuousBernoulli(output))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        low, high = torch.full_like(mean, -50.0), torch.full_like(mean, 50.0)
        for _ in range(40):
            middle = (low + high) / 2
            below = ContinuousBernoulli(middle).mean < mean
            low, high = torch.where(below, middle, low), torch.where(below, high, middle)
        return (low + high) / 2


class NormalLikelihood(Likelihood):
    """p(x|z) = N(x; μ(z), σ² I), a density of x on [0, 1] (bytes are divided by 255).

    Args:
        shape: (C, H, W) of the images.
        scale: σ, or `learned` for one σ shared by all pixels that is trained with the weights.

    Raises:
        ConfigError: if σ is not a positive number.
    """

    supports = frozenset({"levels256", "unit"})

    def __init__(self, shape: tuple[int, int, int], scale: float | str = "learned") -> None:
        super().__init__(shape)
        self.log_scale: nn.Parameter | Tensor
        if scale == "learned":
            self.log_scale = nn.Parameter(torch.zeros(()))
        elif isinstance(scale, str) or not 0 < scale < math.inf:
            raise ConfigError(f"likelihood.scale={scale}: give a number above 0, or 'learned'")
        else:
            self.register_buffer("log_scale", torch.tensor(math.log(scale)))

    def forward(self, output: Tensor) -> Independent:
        learned = isinstance(self.log_scale, nn.Parameter)
        scale = (bounded_log_scale(self.log_scale) if learned else self.log_scale).exp()
        return _images(Normal(output, scale.expand_as(output), validate_args=False))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        if isinstance(self.log_scale, nn.Parameter):
            nn.init.constant_(self.log_scale, float(std.square().mean().sqrt().clamp(1e-3).log()))
        return mean


class DiscretizedLogisticLikelihood(Likelihood):
    """Probabilities of the 256 levels of 8-bit images: see `DiscretizedLogistic`; the decoder gives μ and log s of
    every value, the latter bounded softly to about [−7, 4]."""

    supports = frozenset({"levels256"})
    discrete = True
    outputs = 2

    def forward(self, output: Tensor) -> Independent:
        loc, raw = self.split(output)
        return _images(DiscretizedLogistic(loc, bounded_log_scale(raw)))

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        # A logistic's standard deviation is πs/√3.
        log_scale = (std.clamp(0.02) * math.sqrt(3) / math.pi).log()
        return torch.cat([mean, log_scale], dim=-3)
