"""The normal distributions of a level in a hierarchy, from what its networks give."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.normals import DiagonalNormal

Size = int | torch.SymInt  # a symbol where the program is recorded for export
WIDEST = 2.0  # log σ of a level from which it hardly grows


def normal(output: Tensor, batch: tuple[Size, ...]) -> DiagonalNormal:
    """Return N(μ, diag σ²) over vectors, of a batch shape, from μ and the raw log σ side by side, (N, 2 C, …)."""
    loc, raw = output.to(torch.promote_types(output.dtype, torch.float32)).chunk(2, dim=1)
    return DiagonalNormal(loc.reshape(*batch, -1), level_log_scale(raw.reshape(*batch, -1)))


def level_log_scale(raw: Tensor) -> Tensor:
    """Return the log σ of a level: raw between −7 and 2, logarithmic below, and nowhere above 3.

    A level's σ multiplies what the levels below see. If it grew with the state, one unlikely draw would grow from level
    to level beyond all numbers. Above 2 it is 2 + d / (1 + d), d = log(raw − 1), whose slope begins at 1 and never
    vanishes.
    """
    beyond = torch.log1p((raw - WIDEST).clamp(min=0))
    return bounded_log_scale(raw.clamp(max=WIDEST), high=WIDEST) + beyond / (1 + beyond)


def relative_normal(q: DiagonalNormal, p: DiagonalNormal) -> DiagonalNormal:
    """Return N(μ_p + σ_p μ_q, diag (σ_p σ_q)²): q in units of p.

    A. Vahdat and J. Kautz, NVAE, 2020, section 3.2.
    """
    return DiagonalNormal(p.loc + p.scale * q.loc, p.log_scale + q.log_scale)
