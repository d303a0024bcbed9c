"""What a job takes of the machine it shares with others: threads and a GPU."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_cli.system import memory
from vae_cli.system.locks import file_lock

_before: dict[str, str | None] = {}  # the environment, once it has been changed


def cores() -> int:
    """The CPU cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def allotted() -> int | None:
    """The CPU threads that a batch system has given to this process; None where none has."""
    given = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(given) if given.isdigit() and "OMP_NUM_THREADS" not in os.environ else None


def use_threads(count: int | None) -> None:
    """Let torch use so many CPU threads in this process; None lets it use as many as before it was changed."""
    if not _before and count is None:
        return
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        before = _before.setdefault(name, os.environ.get(name))
        value = before if count is None else str(count)
        os.environ.pop(name, None) if value is None else os.environ.update({name: value})
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(count or int(_before["OMP_NUM_THREADS"] or cores()))


def tune() -> None:
    """Set this process up for computing, before torch first does.

    Freed memory is kept, and numbers below 10⁻³⁸ count as 0: what an optimizer remembers of a weight whose gradient has
    stayed 0, as at the border of MNIST's images, becomes that small, and a processor then takes ten times as long.
    """
    import torch

    memory.keep_freed()
    torch.set_flush_denormal(True)


@contextmanager
def own_gpu(device: str, number: int) -> Iterator[int | None]:
    """Make one GPU this process's current one that no other job holds meanwhile; gives its index.

    Args:
        device: what was asked for; where that is one GPU by its number, or none, nothing is done.
        number: the job's, by which jobs share GPUs where there are more jobs than GPUs.
    """
    found = _gpus() if device in ("auto", "cuda") else []
    if len(found) < 2:
        yield None
        return
    import torch

    for index in [(number + offset) % len(found) for offset in range(len(found))]:
        with file_lock(_lock_of(found[index])) as free:
            if free:
                torch.cuda.set_device(index)
                yield index
                return
    torch.cuda.set_device(number % len(found))
    yield number % len(found)


def _gpus() -> list[str]:
    """The names of the GPUs that this process sees, in torch's order."""
    import torch

    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    count = torch.cuda.device_count()
    return visible[:count] if visible else [str(index) for index in range(count)]


def _lock_of(gpu: str) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else 0
    return Path(tempfile.gettempdir()) / f"vae_cli-{user}-gpu-{gpu.strip().replace('/', '_')}.lock"
