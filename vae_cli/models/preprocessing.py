"""What stands between examples that are no images and the networks: standardized values, and missing ones."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions.observed import Observed


class Preprocessing(nn.Module):
    """From examples in the data's own units to what an encoder sees, and back from a likelihood to these units.

    Real values are standardized, u = (x − c) / s, with constants of the training data that are kept with the weights;
    of counts the encoder sees log(1 + x). A missing value is NaN in x. The encoder sees the training's mean of u there
    and, where the training has missing values, a mask of them as further channels.

    Args:
        shape: (C, …), of an example.
        is_count: which values are counts, (C, …); or whether all are.
        is_real: which are real.
        has_missing: the training has missing values.
    """

    center: Tensor
    scale: Tensor
    usual: Tensor
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
        self.register_buffer("usual", torch.zeros(shape))  # the mean of u
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
        u = self.filled(u)
        return torch.cat([u, missing.to(u)], dim=1) if self.has_missing else u

    def filled(self, u: Float[Tensor, "*batch_shape"]) -> Float[Tensor, "*batch_shape"]:
        """Return u with the training's mean where it is NaN."""
        return torch.where(u.isnan(), self.usual, u)

    def standardized(self, x: Float[Tensor, "*batch_shape"]) -> Float[Tensor, "*batch_shape"]:
        """Return u, NaN where x is."""
        seen = torch.where(self.is_count, torch.log1p(x), x) if self.has_counts else x
        return (seen - self.center) / self.scale

    def inverse(self, u: Float[Tensor, "*batch_shape"]) -> Float[Tensor, "*batch_shape"]:
        """Return the x of a u."""
        x = self.center + self.scale * u
        return torch.where(self.is_count, torch.expm1(x), x) if self.has_counts else x

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
        return Observed(p, self.center, self.scale) if self.has_real else Observed(p)

    def extra_repr(self) -> str:
        return f"{self.shape}, has_missing={self.has_missing}"
