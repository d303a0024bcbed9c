"""The device that a process computes on."""

from __future__ import annotations

import torch

from vae_cli.distributed.processes import Seat
from vae_cli.errors import ConfigError


def choose_device(name: str, seat: Seat | None = None) -> torch.device:
    """The device that `device=` names; `auto` is CUDA, else MPS, else the CPU.

    Args:
        name: of the device.
        seat: of this process among several, each of which takes a GPU of its own.

    Raises:
        ConfigError: if it is not there, or not one for every process.
    """
    if seat is not None and seat.count > 1:
        return _own_device(name, seat)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    found = torch.device(name)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}: torch finds no CUDA GPU here; use device=auto or device=cpu")
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}: there are only {torch.cuda.device_count()} GPU(s), counted from 0")
    if found.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: torch finds no Apple GPU here; use device=auto or device=cpu")
    return found


def _own_device(name: str, seat: Seat) -> torch.device:
    """The device of one of several processes."""
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    if name not in ("auto", "cuda"):
        raise ConfigError(
            f"device={name} cannot be shared by {seat.count} processes; use device=cuda, with which each takes a GPU "
            "of its own, or device=cpu"
        )
    choose_device(name)
    if seat.local_count > torch.cuda.device_count():
        raise ConfigError(
            f"device={name}: {seat.local_count} processes on a machine with {torch.cuda.device_count()} GPU(s); start "
            "one for each GPU, or use device=cpu"
        )
    torch.cuda.set_device(seat.local_rank)
    return torch.device("cuda", seat.local_rank)
