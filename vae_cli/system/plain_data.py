"""Plain data with tensors in it, as one value of JSON and tensors by name."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

_MARKS = ("tensor", "tuple", "items", "float")


def split(value: Any, name: str) -> tuple[Any, dict[str, Tensor]]:
    """Return plain data as a value of JSON, and the tensors in it under names that begin with `name`.

    Plain data are None, booleans, numbers, texts, tensors, and lists, tuples and dicts of these.

    Raises:
        TypeError: for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def encode(value: Any, name: str) -> Any:
        if value is None or isinstance(value, (bool, int, str)):
            return value
        if isinstance(value, float):  # JSON has no name for what is not finite
            return value if math.isfinite(value) else {"float": str(value)}
        if isinstance(value, Tensor):
            if name in tensors:
                raise TypeError(f"two tensors have the name {name}")
            tensors[name] = value.detach()
            return {"tensor": name}
        if isinstance(value, (list, tuple)):
            items = [encode(item, f"{name}.{number}") for number, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, Mapping):
            encoded = [[key, encode(item, f"{name}.{key}")] for key, item in value.items()]
            is_object = all(isinstance(key, str) for key in value) and not (len(value) == 1 and set(value) & {*_MARKS})
            return dict(encoded) if is_object else {"items": encoded}
        raise TypeError(f"{name} is a {type(value).__name__}, which is no plain data")

    return encode(value, name), tensors


def join(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Return what `split` was given.

    Raises:
        ValueError, TypeError, KeyError: if it is not what `split` gives.
    """
    if isinstance(value, list):
        return [join(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    mark = next(iter(value)) if len(value) == 1 else None
    if mark == "tensor":
        return tensors[value[mark]]
    if mark == "tuple":
        return tuple(join(value[mark], tensors))
    if mark == "items":
        return {key: join(item, tensors) for key, item in value[mark]}
    if mark == "float":
        return float(value[mark])
    return {key: join(item, tensors) for key, item in value.items()}


def to_bytes(value: Any) -> bytes:
    """Return plain data as the bytes of a safetensors file, for another process."""
    encoded, tensors = split(value, "value")
    text = torch.frombuffer(bytearray(json.dumps(encoded).encode()), dtype=torch.uint8)
    return save({"": text} | {name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})


def from_bytes(content: bytes) -> Any:
    """Return the plain data that `to_bytes` was given."""
    tensors = load(content)
    return join(json.loads(bytes(tensors.pop("").numpy())), tensors)
