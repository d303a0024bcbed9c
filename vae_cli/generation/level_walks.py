"""Walks through the levels of a hierarchy: upper levels kept and lower ones drawn anew, and one level moved alone."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.errors import ConfigError
from vae_cli.generation.walks import Codes, Walk
from vae_cli.models import Hierarchy, Model
from vae_cli.models.hierarchy import need_hierarchy


def level_number(model: Model, level: int | str) -> int:
    """Return the number of a level, from 1 for z1, that is given by its name or number.

    Raises:
        ConfigError: for a model of one level, or a level that it does not have.
    """
    names = list(need_hierarchy(model, f"level={level}").level_sizes)
    name = f"z{level}" if isinstance(level, int) else level
    if name not in names:
        raise ConfigError(f"level={level}: this model's levels are {names[0]} (nearest to the data) to {names[-1]}")
    return names.index(name) + 1


@torch.no_grad()
def redraw(
    model: Hierarchy,
    z: Float[Tensor, "m d"],
    noise: Float[Tensor, "m s e"],
    firsts: list[str],
    most: int | None = None,
    label: int = 0,
) -> Walk:
    """Return rows that keep the top k levels of z and draw the others from the prior given those: k is 0 in the first
    row, and all but one in the last.

    Each z has 1 + S columns, of which the first is z itself. The same base noise is in a column of all rows.

    Args:
        model: a hierarchy.
        z: M vectors whose levels are kept.
        noise: of the prior, for each of the other columns.
        firsts: captions for the columns of z.
        most: rows, of which there are so many at the most, evenly chosen.
        label: of all points, of a conditional model.
    """
    names, (vectors, draws) = list(model.level_sizes), noise.shape[:2]
    same, drawn = z.repeat_interleave(draws, 0), noise.flatten(0, 1)
    y = torch.full((len(drawn),), label, device=z.device) if model.classes else None
    rows, captions = [], []
    for kept in evenly(len(names), most or len(names)):
        anew = model.complete(same, kept, drawn, y).unflatten(0, (vectors, draws))
        rows.append(torch.cat([z[:, None], anew], dim=1).flatten(0, 1))
        captions.append(_caption(names, kept))
    columns = [text for first in firsts for text in (first, *(f"anew {number + 1}" for number in range(draws)))]
    labels = torch.full((len(rows), len(columns)), label, device=z.device) if model.classes else None
    return Walk(torch.stack(rows), labels, captions, columns)


def evenly(count: int, most: int) -> list[int]:
    """Return the numbers from 0 to `count` − 1, or so many of them."""
    rows = min(count, most)
    return [round(number * (count - 1) / max(1, rows - 1)) for number in range(rows)]


def _caption(names: list[str], kept: int) -> str:
    """Return which levels are kept and which are drawn, in words."""
    drawn, held = names[: len(names) - kept], names[len(names) - kept :]
    return f"{_span(held)} kept, {_span(drawn)} drawn" if held else f"{_span(drawn)} drawn"


def _span(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]}-{names[-1]}"


@torch.no_grad()
def interpolate_level(
    model: Hierarchy,
    first: Codes,
    second: Codes,
    level: int,
    steps: int,
    y: Tensor | None = None,
    rows: list[str] | None = None,
) -> Walk:
    """Return straight lines in one level alone, z_l = (1 − t) z_l¹ + t z_l², t from 0 to 1.

    The levels above stay those of the first end. The levels below follow at the prior's means, so that all that changes
    in a row is what the level does.

    Args:
        model: a hierarchy.
        first: z¹ of each row.
        second: z² of each row.
        level: its number, from 1 for z1.
        steps: points in a row, at least 2.
        y: labels (R,), of a conditional model.
        rows: captions.
    """
    t = torch.linspace(0, 1, steps, device=first.device)
    parts = [part[:, None].expand(-1, steps, -1) for part in model.split(first)]
    other = model.split(second)[level - 1]
    parts[level - 1] = torch.lerp(parts[level - 1], other[:, None], t[None, :, None])
    z = torch.cat(parts, dim=-1)
    labels = None if y is None else y[:, None].expand(-1, steps)
    kept = len(parts) - level + 1
    done = [model.complete(row, kept, y=None if labels is None else labels[n]) for n, row in enumerate(z)]
    name = list(model.level_sizes)[level - 1]
    return Walk(torch.stack(done), labels, rows or [], [f"{value:.0%}" for value in t.tolist()], axis=name)
