"""The normal distributions of a level in a hierarchy, from what its networks give."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.normals import DiagonalNormal

Size = int | torch.SymInt  # a symbol where the program is recorded for export


def normal(output: Tensor, batch: tuple[Size, ...]) -> DiagonalNormal:
    """Return N(μ, diag σ²) over vectors, of a batch shape, from μ and the raw log σ side by side, (N, 2 C, …)."""
    loc, raw = output.to(torch.promote_types(output.dtype, torch.float32)).chunk(2, dim=1)
    return DiagonalNormal(loc.reshape(*batch, -1), bounded_log_scale(raw.reshape(*batch, -1)))


def relative_normal(q: DiagonalNormal, p: DiagonalNormal) -> DiagonalNormal:
    """Return N(μ_p + σ_p μ_q, diag (σ_p σ_q)²): q in units of p.

    A. Vahdat and J. Kautz, NVAE, 2020, section 3.2.
    """
    return DiagonalNormal(p.loc + p.scale * q.loc, p.log_scale + q.log_scale)
