"""Distributions over examples in the data's own units, of which some values may be missing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Bernoulli, Distribution, Independent

from vae_cli.distributions.counts import GivenTotal
from vae_cli.distributions.pixels import Bits


class Observed(Independent):
    r"""Independent values x = c + s u, of which some may be missing:

        log p(x) = Σ_i log p_u((x_i − c_i) / s_i) − log s_i,   over the values that are not NaN

    Args:
        p: the distribution of u, of independent values, (*batch, *shape).
        center: c, of the shape; None if u is x.
        scale: s.
    """

    def __init__(self, p: Distribution, center: Tensor | None = None, scale: Tensor | None = None) -> None:
        if isinstance(p, Bits):
            p = Independent(Bernoulli(logits=p.logits, validate_args=False), p.dims, validate_args=False)
        assert isinstance(p, Independent)
        self.center, self.scale = center, scale
        super().__init__(p.base_dist, p.reinterpreted_batch_ndims, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of what is observed, in nats and the data's units."""
        missing, dims = value.isnan(), self.reinterpreted_batch_ndims
        u = value.masked_fill(missing, 0)
        if self.center is not None and self.scale is not None:
            u = ((u - self.center) / self.scale).masked_fill(missing, 0)
        is_of_total = isinstance(self.base_dist, GivenTotal)  # which is that of the observed counts
        log_p: Tensor = self.base_dist.log_prob(value if is_of_total else u)
        if self.scale is not None:
            log_p = log_p - self.scale.log()
        return log_p.masked_fill(missing, 0).flatten(-dims).sum(-1)

    def given(self, x: Tensor) -> Observed:
        """Return the distribution given what is taken as known of examples x: their totals, where it is one given the
        total."""
        if not isinstance(self.base_dist, GivenTotal):
            return self
        p = Independent(self.base_dist.of(x), self.reinterpreted_batch_ndims, validate_args=False)
        return Observed(p, self.center, self.scale)

    def entropy(self) -> Tensor:
        entropy: Tensor = super().entropy()
        return entropy if self.scale is None else entropy + self.scale.log().sum()

    @property
    def mean(self) -> Tensor:
        return self._in_units(super().mean)

    @property
    def mode(self) -> Tensor:
        return self._in_units(super().mode)

    @property
    def variance(self) -> Tensor:
        variance = super().variance
        return variance if self.scale is None else variance * self.scale.square()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._in_units(super().rsample(torch.Size(sample_shape)))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._in_units(super().sample(torch.Size(sample_shape)))

    def expand(self, batch_shape: Any, _instance: Any = None) -> Observed:
        full = torch.Size(batch_shape) + self.event_shape
        p = Independent(self.base_dist.expand(full), self.reinterpreted_batch_ndims, validate_args=False)
        return Observed(p, self.center, self.scale)

    def _in_units(self, u: Tensor) -> Tensor:
        return u if self.center is None or self.scale is None else self.center + self.scale * u
