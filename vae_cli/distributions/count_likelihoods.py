"""Heads that turn a decoder's output into distributions over counts."""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution, Independent

from vae_cli.constraints import Described, Positive
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.counts import GivenTotal, NegativeBinomial, Poisson, ZeroInflated, log_shape_of
from vae_cli.distributions.likelihoods import Likelihood

LOWEST, HIGHEST = -15.0, 15.0  # of a log-mean, beyond which it grows slowly
SHAPES = (-7.0, 9.0)  # of the logarithm of a negative binomial's shape
GATE = -3.0  # logit of the part of zeros that a zero-inflated model begins with

Offset = Literal["none", "total"]
Dispersion = Annotated[
    Literal["learned", "per_position", "per_value"] | Positive,
    Described("learned, per_position, per_value or a number above 0", ("learned", "per_position", "per_value")),
]


class CountLikelihood(Likelihood):
    """Independent counts 0, 1, 2 … whose log-means the decoder gives.

    Args:
        shape: of an example.
        offset: `none`; or `total`, with which the decoder gives the shares of an example's total n, which is taken as a
            known fact about it: p(x|z, n). Examples that are drawn have the mean total of the training's.
    """

    supports = frozenset({"counts"})
    discrete = True
    usual: Tensor

    def __init__(self, shape: tuple[int, ...], offset: Offset = "none") -> None:
        super().__init__(shape)
        self.offset = offset
        self.register_buffer("usual", torch.zeros(()))  # log of the mean total

    @torch.no_grad()
    def set_total(self, total: Tensor) -> None:
        """Set the mean total of the training's examples."""
        self.usual.copy_(total.clamp(min=1e-6).log())

    def forward(self, output: Tensor) -> Independent:
        parts = self.split(output)
        if self.offset == "none":
            return self.independent(self.counts(bounded_log_scale(parts[0], LOWEST, HIGHEST), parts[1:]))
        dims = len(self.shape)
        log_share = parts[0].flatten(-dims).log_softmax(-1).unflatten(-1, self.shape)
        return self.independent(
            GivenTotal(log_share, lambda log_mean: self.counts(log_mean, parts[1:]), dims, self.usual)
        )

    def start_at(self, mean: Tensor, std: Tensor) -> Tensor:
        log_mean = mean.clamp(min=1e-4).log()
        return torch.cat([log_mean, *self.further_starts(mean, std)])  # shares are these up to a constant

    @abstractmethod
    def counts(self, log_mean: Tensor, further: tuple[Tensor, ...]) -> Distribution:
        """Return the distributions of the counts by their log-means and what else the decoder gives."""

    def further_starts(self, mean: Tensor, std: Tensor) -> list[Tensor]:
        """Return what else the decoder gives for data of this mean and standard deviation."""
        return []


class PoissonLikelihood(CountLikelihood):
    """p(x|z) = Π_i Poisson(x_i; μ_i(z)).

    Args:
        shape: of an example.
        offset: as of `CountLikelihood`.
    """

    def __init__(self, shape: tuple[int, ...], offset: Offset = "none") -> None:
        super().__init__(shape, offset)

    def counts(self, log_mean: Tensor, further: tuple[Tensor, ...]) -> Poisson:
        return Poisson(log_mean)


class NegativeBinomialLikelihood(CountLikelihood):
    """p(x|z) = Π_i NB(x_i; μ_i(z), θ_i), of variance μ + μ² / θ.

    Args:
        shape: of an example.
        dispersion: the shape θ: a number; `learned`, one for all values; `per_position`, one for every place in an
            example; or `per_value`, given by the decoder. What is learned starts at the training's moments.
        offset: as of `CountLikelihood`.
    """

    def __init__(
        self, shape: tuple[int, ...], dispersion: Dispersion = "per_position", offset: Offset = "none"
    ) -> None:
        super().__init__(shape, offset)
        self.dispersion = dispersion
        self.raw_shape: Tensor | None
        if dispersion in ("learned", "per_position"):
            self.raw_shape = nn.Parameter(torch.zeros(shape if dispersion == "per_position" else ()))
        else:
            fixed = None if isinstance(dispersion, str) else torch.tensor(float(dispersion)).log()
            self.register_buffer("raw_shape", fixed)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return self._numbers * self.shape[0], *self.shape[1:]

    @property
    def _numbers(self) -> int:
        return 2 if self.dispersion == "per_value" else 1

    def split(self, output: Tensor) -> tuple[Tensor, ...]:
        return output.chunk(self._numbers, dim=-len(self.shape))

    def counts(self, log_mean: Tensor, further: tuple[Tensor, ...]) -> Distribution:
        raw = further[0] if self.raw_shape is None else self.raw_shape
        return NegativeBinomial(log_mean, bounded_log_scale(raw, *SHAPES))

    def further_starts(self, mean: Tensor, std: Tensor) -> list[Tensor]:
        log_shape = log_shape_of(mean, std.square(), 0.05, 100)
        if self.raw_shape is None:
            return [log_shape]
        if isinstance(self.dispersion, str):
            with torch.no_grad():
                self.raw_shape.copy_(log_shape if self.dispersion == "per_position" else log_shape.mean())
        return []


class ZeroInflatedNegativeBinomialLikelihood(NegativeBinomialLikelihood):
    """p(x|z) = Π_i π_i(z) [x_i = 0] + (1 − π_i(z)) NB(x_i; μ_i(z), θ_i).

    Args:
        shape: of an example.
        dispersion: as of `NegativeBinomialLikelihood`.
        offset: as of `CountLikelihood`.
    """

    def __init__(
        self, shape: tuple[int, ...], dispersion: Dispersion = "per_position", offset: Offset = "none"
    ) -> None:
        super().__init__(shape, dispersion, offset)

    @property
    def _numbers(self) -> int:
        return 1 + super()._numbers

    def counts(self, log_mean: Tensor, further: tuple[Tensor, ...]) -> Distribution:
        *dispersion, gate = further
        return ZeroInflated(super().counts(log_mean, tuple(dispersion)), gate)

    def further_starts(self, mean: Tensor, std: Tensor) -> list[Tensor]:
        return [*super().further_starts(mean, std), torch.full_like(mean, GATE)]
