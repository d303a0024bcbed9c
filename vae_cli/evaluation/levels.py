"""What each level of a hierarchy holds."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli import noise
from vae_cli.distributions import DiagonalNormal, LatentDistribution
from vae_cli.evaluation.latent_codes import ACTIVE, Points
from vae_cli.models import Hierarchy, Model

CHUNK = noise.BLOCK  # examples together


@torch.no_grad()
def moments_below(
    model: Hierarchy, z: Float[Tensor, "n d"], y: Tensor | None = None
) -> tuple[Float[Tensor, "n b"], Float[Tensor, "n b"]]:
    """Return the mean and standard deviation of p(z_l | z_{>l}) in each dimension of the levels below the top, given
    the levels above in z."""
    levels = model.split(z.unsqueeze(0))
    moments: list[tuple[Tensor, Tensor]] = []

    def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
        if p is not None:
            moments.insert(0, p.moments())
        return levels[number]

    model.run_levels(choose, 1, len(z), y if model.classes else None)
    if not moments:
        return z[:, :0], z[:, :0]
    means, scales = (torch.cat(parts, dim=-1).squeeze(0) for parts in zip(*moments))
    return means, scales


@torch.no_grad()
def relative_means(model: Model, points: Points) -> Float[Tensor, "n d"]:
    """Return the posterior means by which a dimension's activity is judged.

    Of a hierarchy, those of the levels below the top are in units of the prior, (μ_q − μ_p) / σ_p, given the means
    above: a level that follows its prior varies with the levels above and holds nothing of its own.
    """
    if not isinstance(model, Hierarchy):
        return points.means
    device = next(model.parameters()).device
    parts = []
    for start in range(0, len(points.means), CHUNK):
        means = points.means[start : start + CHUNK].to(device)
        y = None if points.labels is None else points.labels[start : start + CHUNK].to(device)
        loc, scale = moments_below(model, means, y)
        below, top = means[:, : loc.shape[1]], means[:, loc.shape[1] :]
        parts.append(torch.cat([(below - loc) / scale, top], dim=1).cpu())
    return torch.cat(parts)


def kl_by_level(model: Model, numbers: Mapping[str, float]) -> dict[str, float]:
    """Return the KL of each level by its name, as far as a split's numbers have it; a single level has all of it."""
    names = list(model.level_sizes)
    keys = {name: f"kl_{name}" for name in names} if len(names) > 1 else {names[0]: "kl"}
    return {name: numbers[key] for name, key in keys.items() if key in numbers}


def active_by_level(model: Model, relative: Float[Tensor, "n d"]) -> dict[str, int]:
    """Return the number of active dimensions of each level, from what `relative_means` gives."""
    is_active = relative.double().var(0) > ACTIVE
    return {name: int(part.sum()) for name, part in zip(model.level_sizes, model.split(is_active))}
