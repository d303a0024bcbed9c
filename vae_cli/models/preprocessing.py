"""What stands between data that are no images and the networks: standardized values, and values that are missing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, Independent


class Preprocessing(nn.Module):
    """From examples in the data's own units to what an encoder sees, and back from a likelihood to these units.

    Real values are standardized, u = (x − c) / s, with constants of the training data that are kept with the weights;
    of counts the encoder sees log(1 + x). A missing value is NaN in x. The encoder sees 0 there, the mean of the
    training's, and, where the training has missing values, a mask of them as further channels.

    Args:
        shape: (C, …), of an example.
        is_count: which values are counts, (C, …); or whether all are.
        is_real: which are real.
        has_missing: the training has missing values.
    """

    center: Tensor
    scale: Tensor
    is_count: Tensor
    is_real: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        is_count: bool | Sequence[bool] = False,
        is_real: bool | Sequence[bool] = True,
        has_missing: bool = False,
    ) -> None:
        super().__init__()
        self.shape, self.has_missing = tuple(shape), has_missing
        self.register_buffer("center", torch.zeros(shape))
        self.register_buffer("scale", torch.ones(shape))
        for name, value in (("is_count", is_count), ("is_real", is_real)):
            self.register_buffer(name, torch.as_tensor(value).expand(shape).clone(), persistent=False)
        self.has_counts, self.has_real = bool(np.any(is_count)), bool(np.any(is_real))
        self.is_all_real = bool(np.all(is_real))

    @property
    def seen_shape(self) -> tuple[int, ...]:
        """The shape of what the encoder sees."""
        return (1 + self.has_missing) * self.shape[0], *self.shape[1:]

    def forward(self, x: Float[Tensor, "n *shape"]) -> Float[Tensor, "n *seen_shape"]:
        u = self.standardized(x)
        missing = u.isnan()
        u = u.masked_fill(missing, 0)
        return torch.cat([u, missing.to(u)], dim=1) if self.has_missing else u

    def standardized(self, x: Float[Tensor, "*batch_shape"]) -> Float[Tensor, "*batch_shape"]:
        """Return u, NaN where x is."""
        seen = torch.where(self.is_count, torch.log1p(x), x) if self.has_counts else x
        return (seen - self.center) / self.scale

    def inverse(self, u: Float[Tensor, "*batch_shape"]) -> Float[Tensor, "*batch_shape"]:
        """Return the x of a u."""
        x = self.center + self.scale * u
        return torch.where(self.is_count, torch.expm1(x.clamp(min=0)), x) if self.has_counts else x

    @torch.no_grad()
    def start_at(self, center: Float[Tensor, "*shape"], scale: Float[Tensor, "*shape"]) -> None:
        """Set the constants of real values."""
        self.center.copy_(torch.where(self.is_real, center, 0))
        self.scale.copy_(torch.where(self.is_real, scale, 1))

    def of_likelihood(
        self, mean: Float[Tensor, "*shape"], std: Float[Tensor, "*shape"]
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """Return a mean and a standard deviation of x as the likelihood has them."""
        return (mean - self.center) / self.scale, std / self.scale

    def in_data_units(self, p: Distribution) -> Observed:
        """Return the distribution of x by that of u for real values, and by their own for others."""
        assert isinstance(p, Independent)
        return Observed(p, self.center, self.scale) if self.has_real else Observed(p)

    def extra_repr(self) -> str:
        return f"{self.shape}, has_missing={self.has_missing}"


class Observed(Independent):
    r"""Independent values x = c + s u, of which some may be missing:

        log p(x) = Σ_i log p_u((x_i − c_i) / s_i) − log s_i,   over the values that are not NaN

    Args:
        p: the distribution of u, (*batch, *shape).
        center: c, of the shape; None if u is x.
        scale: s.
    """

    def __init__(self, p: Independent, center: Tensor | None = None, scale: Tensor | None = None) -> None:
        self.center, self.scale = center, scale
        super().__init__(p.base_dist, p.reinterpreted_batch_ndims, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """Return the log-density of what is observed, in nats and the data's units."""
        missing = value.isnan()
        u = value.masked_fill(missing, 0)
        if self.center is not None and self.scale is not None:
            u = ((u - self.center) / self.scale).masked_fill(missing, 0)
        log_p: Tensor = self.base_dist.log_prob(u)
        if self.scale is not None:
            log_p = log_p - self.scale.log()
        return log_p.masked_fill(missing, 0).flatten(-self.reinterpreted_batch_ndims).sum(-1)

    @property
    def mean(self) -> Tensor:
        return self._in_units(super().mean)

    @property
    def variance(self) -> Tensor:
        variance = super().variance
        return variance if self.scale is None else variance * self.scale.square()

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        return self._in_units(super().rsample(torch.Size(sample_shape)))

    @torch.no_grad()
    def sample(self, sample_shape: Any = ()) -> Tensor:
        return self._in_units(super().sample(torch.Size(sample_shape)))

    def _in_units(self, u: Tensor) -> Tensor:
        return u if self.center is None or self.scale is None else self.center + self.scale * u
