"""The state of an optimizer out of a checkpoint: checked, and restored without what belongs to another device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

_COUNTERS = {"step", "eta", "mu", "mu_product"}  # scalars in the states of torch's optimizers
_DEVICE_FLAGS = {"fused", "foreach", "capturable"}  # of an optimizer, which a checkpoint must not bring along


def restore(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Give an optimizer a stored state, which torch takes as it comes; the flags of its device stay its own.

    Raises:
        ValueError, KeyError, IndexError: if the state has other settings, or values that do not go with the parameters.
    """
    flags = [{key: group[key] for key in _DEVICE_FLAGS & group.keys()} for group in optimizer.param_groups]
    _check(optimizer, state)
    optimizer.load_state_dict(state)
    for group, own in zip(optimizer.param_groups, flags):
        group.update(own)


def _check(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Compare a stored state with the optimizer that it is for.

    Raises:
        ValueError: if it has other settings, or values that do not go with their parameters.
    """
    # An optimizer of one's own may keep numbers that change among its settings, as schedule-free ones do.
    is_known = type(optimizer).__module__.startswith(("torch.optim", "vae_cli."))
    for group, stored in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in group.items():
            is_alike = type(stored[key]) is type(value) or None in (stored[key], value)
            if key != "params" and not (is_alike or isinstance(value, float) and isinstance(stored[key], int)):
                raise ValueError(f"the optimizer's {key} is {str(type(stored[key]).__name__)}")
            # The rate alone follows a schedule.
            if is_known and key not in {"params", "lr", *_DEVICE_FLAGS} and stored[key] != value:
                raise ValueError(f"the optimizer's {key} is not that of its config")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    kinds: dict[str, set[type]] = {}
    for number, values in state["state"].items():
        for name, value in values.items():
            if isinstance(value, Tensor):
                shape = parameters[number].shape
                shapes = (torch.Size() if name in _COUNTERS else shape,) if is_known else (shape, torch.Size())
                # torch's fused steps read as many values as the parameter has, wherever they lie.
                fits = value.shape in shapes and (value.is_floating_point() or not is_known)
            else:
                fits = value is None or isinstance(value, (int, float))
            if not fits:
                raise ValueError(f"the optimizer's {name} of parameter {number} does not go with it")
            kinds.setdefault(name, set()).add(type(value))
            if is_known and len(kinds[name]) > 1:  # a number for one parameter, where the others have tensors
                raise ValueError(f"the optimizer's {name} of parameter {number} is not of the others' kind")
