"""Bodies of requests, read with care: whatever a program may send, it is either as agreed or refused in one line."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor

from vae_cli.errors import UserError

LARGEST = 1e6  # of a coordinate; farther out no model has anything to show
MOST_STEPS = 25  # of a walk
HOTTEST = 10.0  # temperature
LARGEST_SEED = 2**53 - 1  # that a page can hold


class BadRequest(UserError):
    """A request that is not as the page makes them."""


def read_json(body: bytes) -> dict[str, Any]:
    """Return the object that a body holds.

    Raises:
        BadRequest: for anything else, NaN and infinities among them.
    """

    def refuse(name: str) -> NoReturn:
        raise BadRequest(f"the body holds {name}, which is no number")

    try:
        read = json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:
        raise error if isinstance(error, BadRequest) else BadRequest("the body is no JSON") from error
    if not isinstance(read, dict):
        raise BadRequest("the body is no JSON object")
    return read


def latent(body: Mapping[str, Any], key: str, dim: int) -> Tensor:
    """Return a code z (D,)."""
    values = body.get(key)
    if not isinstance(values, list) or len(values) != dim:
        raise BadRequest(f"{key} has to be a list of {dim} numbers")
    return torch.tensor([_number(f"each of {key}", value, -LARGEST, LARGEST) for value in values])


def label(body: Mapping[str, Any], key: str, classes: int) -> int | None:
    """Return a label of a conditional model, 0 where none is named; None of another model."""
    if not classes:
        if body.get(key) is not None:
            raise BadRequest(f"{key}: this model takes no labels")
        return None
    return whole(body, key, classes - 1, 0)


def whole(body: Mapping[str, Any], key: str, highest: int, default: int | None = None, lowest: int = 0) -> int:
    """Return an integer in a range."""
    value = body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
        raise BadRequest(f"{key} has to be an integer from {lowest} to {highest}")
    return value


def temperature(body: Mapping[str, Any]) -> float:
    """Return a factor of the prior's spread."""
    return _number("temperature", body.get("temperature", 1), 0, HOTTEST)


def choice(body: Mapping[str, Any], key: str, names: Mapping[str, Any]) -> Any:
    """Return the value of a choice by its name."""
    value = body.get(key)
    if not isinstance(value, str) or value not in names:
        raise BadRequest(f"{key} has to be one of {', '.join(list(names)[:20])}")
    return names[value]


def _number(what: str, value: Any, low: float, high: float) -> float:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not low <= value <= high or not math.isfinite(value):
        raise BadRequest(f"{what} has to be a number from {low:g} to {high:g}")
    return float(value)
