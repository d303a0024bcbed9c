"""The device that a process computes on."""

from __future__ import annotations

import torch

from vae_cli.distributed.ranks import Rank
from vae_cli.errors import ConfigError, counted


def choose_device(name: str, rank: Rank | None = None) -> torch.device:
    """Return the device that `device=` names. `auto` is CUDA, else MPS, else the CPU.

    Args:
        name: auto, cpu, cuda, cuda:N or mps.
        rank: of this process. Of several processes on a machine each takes a GPU of its own.

    Raises:
        ConfigError: if the device is missing, or there is not one for every process.
    """
    rank = rank or Rank()
    if rank.world_size > 1 and name not in ("auto", "cuda", "cpu"):
        raise ConfigError(
            f"device={name} cannot be shared by {rank.world_size} processes; use device=cuda, with which each takes a "
            "GPU of its own, or device=cpu"
        )
    if name == "auto":
        has_mps = torch.backends.mps.is_available() and rank.world_size == 1
        name = "cuda" if torch.cuda.is_available() else "mps" if has_mps else "cpu"
    device = torch.device(name)
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError(f"device={name}: torch finds no CUDA GPU here; use device=auto or device=cpu")
    gpus = counted(torch.cuda.device_count(), "GPU")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device={name}: this machine has {gpus}, counted from 0")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device=mps: torch finds no Apple GPU here; use device=auto or device=cpu")
    if device.type != "cuda" or rank.world_size == 1:
        return device
    if rank.local_world_size > torch.cuda.device_count():
        raise ConfigError(
            f"device={name}: {rank.local_world_size} processes on a machine with {gpus}; "
            "start one for each GPU, or use device=cpu"
        )
    torch.cuda.set_device(rank.local_rank)
    return torch.device("cuda", rank.local_rank)
