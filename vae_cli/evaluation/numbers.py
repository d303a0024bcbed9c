"""Numbers as evaluation.json has them: a value, its standard error if one is known, and of how many examples it is."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

Number = dict[str, Any]


def number(value: float, count: int, error: float | None = None) -> Number:
    """Return a number of so many examples."""
    return {"value": float(value), "stderr": None if error is None else float(error), "n": count}


def mean(values: Tensor) -> Number:
    """Return the mean of N values with its standard error, which one value alone has not."""
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else None
    return number(float(values.mean()), len(values), error)


def accuracy(share: float, count: int) -> Number:
    """Return the share that is right of N independent cases, with the standard error √(p (1 − p) / N)."""
    return number(share, count, math.sqrt(share * (1 - share) / count))
