"""Log-scales kept where their exponentials are finite, without ever stopping a gradient."""

from __future__ import annotations

import torch
from torch import Tensor

LOW, HIGH = -7.0, 4.0


def bounded_log_scale(raw: Tensor, low: float = LOW, high: float = HIGH) -> Tensor:
    """Return raw on [low, high], logarithmic beyond: low − log(1 + low − raw), high + log(1 + raw − high).

    Monotone with a slope 1/(1 + distance) that never vanishes, so a scale that has run away finds back, while
    the exponential of every float32 of a size under 10⁹ and its square stay finite.
    """
    if raw.is_cpu and raw.numel() and not torch.compiler.is_compiling():
        least, most = torch.aminmax(raw.detach())  # which saves some 20 operations in both directions
        if low <= float(least) and float(most) <= high:
            return raw.clone()  # never a parameter itself
    inside = raw.clamp(low, high)
    beyond = raw - inside
    return inside + beyond.sign() * torch.log1p(beyond.abs())


def is_beyond(log_scale: Tensor) -> Tensor:
    """Return where a bounded log-scale has come within a tenth of a bound, or is beyond it."""
    return (log_scale < LOW + 0.1) | (log_scale > HIGH - 0.1)
