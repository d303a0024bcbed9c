"""The posteriors of many examples, computed in chunks."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.distributions import LatentDistribution
from vae_cli.errors import DataError
from vae_cli.models.level_distributions import HierarchicalPosterior


class ChunkedPosterior(LatentDistribution):
    """q(z|x) of N examples of a hierarchy, in the chunks that the commands compute together.

    A hierarchy runs its networks whenever z is drawn or scored, and a product's rounding depends on its size: in the
    same chunks the numbers are the commands' bit for bit.

    Args:
        parts: the posteriors of each chunk.
    """

    def __init__(self, parts: Sequence[HierarchicalPosterior]) -> None:
        self.parts = parts
        self.sizes = [q.batch_shape[0] for q in parts]
        super().__init__(torch.Size([sum(self.sizes)]), parts[0].event_shape, validate_args=False)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        drawn = [q.rsample_and_log_prob(rows) for q, rows in zip(self.parts, self._rows(noise))]
        return torch.cat([z for z, _ in drawn], dim=-2), torch.cat([log_q for _, log_q in drawn], dim=-1)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Float[Tensor, "*draws n d"]:
        like = self.parts[0].features[0]
        noise = like.new_empty(*sample_shape, *self.batch_shape, *self.event_shape).normal_()
        return self.rsample_and_log_prob(noise)[0]

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return torch.cat([q.log_prob(rows) for q, rows in zip(self.parts, self._rows(value))], dim=-1)

    def log_prob_by_level(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "l *b"]:
        return torch.cat([q.log_prob_by_level(rows) for q, rows in zip(self.parts, self._rows(value))], dim=-1)

    @property
    def mean(self) -> Tensor:
        """The mean of each level, given the means above, (N, D)."""
        return self.moments()[0]

    def moments(self) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """Return the mean and standard deviation of each dimension, given the means of the levels above."""
        means, scales = zip(*(q.moments() for q in self.parts))
        return torch.cat(means), torch.cat(scales)

    @property
    def stddev(self) -> Tensor:
        """The standard deviation of each dimension, given the means of the levels above, (N, D)."""
        return self.moments()[1]

    def frozen(self) -> ChunkedPosterior:
        return ChunkedPosterior([q.frozen() for q in self.parts])

    def _rows(self, value: Tensor) -> tuple[Tensor, ...]:
        """Return the rows of a tensor (…, N or 1, D) for each chunk."""
        (count,), (width,), shape = self.batch_shape, self.event_shape, tuple(value.shape)
        if shape[-1:] != (width,) or shape[-2:-1] not in ((), (1,), (count,)):
            raise DataError(f"a tensor of shape {shape}; of {count} examples give (…, {count}, {width})")
        lead = torch.broadcast_shapes(value.shape[:-1], self.batch_shape)
        return value.expand(*lead, value.shape[-1]).split(self.sizes, dim=-2)
