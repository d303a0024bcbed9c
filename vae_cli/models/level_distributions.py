"""The distributions of a hierarchy over the vectors of all its levels, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import functional_call

from vae_cli.distributions import DiagonalNormal, LatentDistribution
from vae_cli.distributions.levels import Size

if TYPE_CHECKING:
    from vae_cli.models.hierarchy import Hierarchy

Features = tuple[Tensor, ...]
# From a level's number, its q(z_l | z_{>l}, x) and p(z_l | z_{>l}), if they are asked for, to z_l (K, B, D_l).
Choose = Callable[[int, DiagonalNormal | None, LatentDistribution | None], Tensor]


class HierarchicalPosterior(LatentDistribution):
    """q(z|x) of a hierarchy, over the levels' vectors one after the other.

    Args:
        model: the hierarchy.
        features: of B examples.
        y: labels (B,).
        is_frozen: the model's parameters are detached.
    """

    def __init__(self, model: Hierarchy, features: Features, y: Tensor | None, is_frozen: bool = False) -> None:
        self.model, self.features, self.y, self.is_frozen = model, features, y, is_frozen
        super().__init__(features[0].shape[:1], torch.Size([model.latent_dim]), validate_args=False)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        drawn, log_q = self.model.split(_as_draws(noise)), []

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert q is not None
            z, log_prob = q.rsample_and_log_prob(drawn[number])
            log_q.append(log_prob)
            return z

        z = torch.cat(self._run_levels(choose, drawn[0].shape[0]), dim=-1)
        return z.reshape(*noise.shape[:-1], -1), sum_of(log_q).reshape(noise.shape[:-1])

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return self.log_prob_by_level(value).sum(0)

    def log_prob_by_level(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "l *b"]:
        arguments = (self.features, _as_draws(value), self.y)
        if self.is_frozen:
            detached = {name: parameter.detach() for name, parameter in self.model.named_parameters()}
            log_q = functional_call(self.model, detached, arguments)
        else:
            log_q = self.model(*arguments)
        return log_q.reshape(-1, *value.shape[:-1])

    @property
    def mean(self) -> Tensor:
        """The mean of each level, given the means above, (B, D)."""
        return self.moments()[0]

    def moments(self) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        """Return the mean and standard deviation of each dimension, given the means of the levels above."""
        scales: list[Tensor] = []

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert q is not None
            scales.insert(0, q.scale.reshape(1, *q.scale.shape[-2:]))
            return q.loc.reshape(1, *q.loc.shape[-2:])

        means = self._run_levels(choose, 1)
        return torch.cat(means, dim=-1).squeeze(0), torch.cat(scales, dim=-1).squeeze(0)

    def frozen(self) -> HierarchicalPosterior:
        return HierarchicalPosterior(self.model, tuple(each.detach() for each in self.features), self.y, is_frozen=True)

    def _run_levels(self, choose: Choose, draws: Size) -> list[Tensor]:
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self.model.run_levels(choose, draws, self.batch_shape[0], self.y, self.features)[0]


class HierarchicalPrior(LatentDistribution):
    """p(z) of a hierarchy, over the levels' vectors one after the other.

    Args:
        model: the hierarchy.
        top: p(z_L), of batch shape () or (N,).
        y: labels (N,).
    """

    def __init__(self, model: Hierarchy, top: LatentDistribution, y: Tensor | None) -> None:
        self.model, self.top, self.y = model, top, y
        batch = torch.Size() if y is None else y.shape
        super().__init__(batch, torch.Size([model.latent_dim]), validate_args=False)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        drawn = self.model.split(_as_draws(noise))
        return self._run_levels(lambda number, p: p.rsample_and_log_prob(drawn[number]), noise)

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        levels = self.model.split(_as_draws(value))
        return self._run_levels(lambda number, p: (levels[number], p.log_prob(levels[number])), value)[1]

    @property
    def mean(self) -> Tensor:
        """The mean of each level, given the means above, (*batch, D)."""
        rows = self.batch_shape.numel()

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert p is not None
            return p.mean.expand(1, rows, -1)

        means, _ = self.model.run_levels(choose, 1, rows, self.y, top=self.top)
        return torch.cat(means, dim=-1).reshape(*self.batch_shape, -1)

    def _run_levels(
        self, z_and_log_prob: Callable[[int, LatentDistribution], tuple[Tensor, Tensor]], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return z and log p(z), with the leading axes of `like`, of what the argument gives for each level."""
        lead, log_p = like.shape[:-1], []

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert p is not None
            z, log_prob = z_and_log_prob(number, p)
            log_p.append(log_prob)
            return z

        draws, rows = _as_draws(like).shape[:2]
        z, _ = self.model.run_levels(choose, draws, rows, self.y, top=self.top)
        return torch.cat(z, dim=-1).reshape(*lead, -1), sum_of(log_p).reshape(lead)


def _as_draws(value: Float[Tensor, "*draws d"]) -> Float[Tensor, "k b d"]:
    """Return a tensor with one axis of draws before that of the batch, of which either may be missing."""
    return value.reshape(-1, *value.shape[-2:]) if value.dim() > 1 else value[None, None]


def sum_of(values: list[Tensor]) -> Tensor:
    """Return the sum of tensors of one shape."""
    return values[0] if len(values) == 1 else torch.stack(values).sum(0)
