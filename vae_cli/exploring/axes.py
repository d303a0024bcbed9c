"""Directions of the latent space to move along: its dimensions, the telling ones first, and its principal ones."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.generation import walks
from vae_cli.models import Model

WIDTH = 3.0  # standard deviations to either side
PRINCIPAL = 6  # principal directions, at most
BLOCK = 64  # dimensions judged at once


@dataclass(frozen=True)
class Axis:
    """A line z = origin + u · direction.

    Args:
        name: `z3` of a dimension, `p1` of the first principal direction.
        title: for a person.
        direction: (D,), of length 1.
        origin: (D,), where u is 0.
        low: the least u that is shown.
        high: the largest u that is shown.
        start: u of the prior's mean.
    """

    name: str
    title: str
    direction: Float[Tensor, "d"]
    origin: Float[Tensor, "d"]
    low: float
    high: float
    start: float

    def places(self, z: Float[Tensor, "n d"]) -> Float[Tensor, "n"]:
        """Return u of each z."""
        return (z - self.origin) @ self.direction


@torch.no_grad()
def dimensions(model: Model, means: Float[Tensor, "n d"] | None) -> list[Axis]:
    """Return the dimensions of the latent space, the most telling one first.

    It is the one whose posterior mean varies most over the examples; without examples, the one that changes the image
    most.

    Args:
        model: a trained model.
        means: of q(z|x) for N examples, on the CPU.
    """
    center, scale = (values.cpu() for values in walks.prior_moments(model))
    telling = _effects(model, center, scale) if means is None else means.double().var(0, correction=0)
    low, high = _ranges(center, scale, means)
    unit = torch.eye(len(center))
    axes = []
    for d in telling.argsort(descending=True, stable=True).tolist():
        title = f"z{d}" if means is None else f"z{d}, variance {telling[d]:.2f}"
        ends = float(low[d]), float(high[d]), float(center[d])
        axes.append(Axis(f"z{d}", title, unit[d], torch.zeros_like(center), *ends))
    return axes


def principal(means: Float[Tensor, "n d"], center: Float[Tensor, "d"]) -> list[Axis]:
    """Return the directions in which the posterior means of N examples vary most.

    Args:
        means: on the CPU.
        center: the prior's mean.
    """
    origin = means.double().mean(0)
    variances, vectors = torch.linalg.eigh(torch.cov(means.double().T, correction=0).reshape(means.shape[1], -1))
    axes = []
    for number in range(min(PRINCIPAL, means.shape[1])):
        direction, variance = vectors[:, -1 - number], float(variances[-1 - number].clamp(min=0))
        direction = direction * direction[direction.abs().argmax()].sign()
        u, reach = (means - origin) @ direction, WIDTH * max(variance, 1e-12) ** 0.5
        share = variance / max(float(variances.sum()), 1e-12)
        start = float((center - origin) @ direction)
        ends = min(-reach, start, float(u.min())), max(reach, start, float(u.max())), start
        title = f"principal {number + 1}, {share:.0%}"
        axes.append(Axis(f"p{number + 1}", title, direction.float(), origin.float(), *ends))
    return axes


def _ranges(center: Tensor, scale: Tensor, means: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the ends of each dimension: three of the prior's standard deviations, or as far as codes lie."""
    low, high = center - WIDTH * scale, center + WIDTH * scale
    return (low, high) if means is None else (torch.minimum(low, means.amin(0)), torch.maximum(high, means.amax(0)))


def _effects(model: Model, center: Tensor, scale: Tensor) -> Float[Tensor, "d"]:
    """Return the mean square by which the pixels change from one end of each dimension to the other."""
    device = next(model.parameters()).device
    effects = []
    for steps in torch.diag(scale).split(BLOCK):
        z = torch.stack([center - steps, center + steps]).to(device)
        y = torch.zeros(z.shape[:2], dtype=torch.long, device=device) if model.classes else None
        below, above = model.image(z, y).cpu()
        effects.append((above - below).flatten(1).double().square().mean(1))
    return torch.cat(effects)
