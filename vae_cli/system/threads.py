"""The CPU threads and the GPU of one process among others on a machine."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_cli.system import memory
from vae_cli.system.locks import file_lock

VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def cores() -> int:
    """Return how many CPU cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS and Windows
        return os.cpu_count() or 1


def slurm_threads() -> int | None:
    """Return how many CPU threads Slurm has given to this process; None outside of Slurm, or if OMP_NUM_THREADS is
    set."""
    count = os.environ.get("SLURM_CPUS_PER_TASK", "")
    return int(count) if count.isdigit() and "OMP_NUM_THREADS" not in os.environ else None


def use_threads(count: int | None) -> None:
    """Let torch use so many CPU threads in this process; None leaves their number as it is."""
    if count is None:
        return
    os.environ.update(dict.fromkeys(VARIABLES, str(count)))
    import torch  # after the variables, which its libraries read at their start

    torch.set_num_threads(count)


@contextmanager
def restored_threads() -> Iterator[None]:
    """Put the number of CPU threads back at the end, for the next job in this process."""
    variables = {name: os.environ.get(name) for name in VARIABLES}
    loaded = sys.modules.get("torch")
    count = loaded.get_num_threads() if loaded else int(variables["OMP_NUM_THREADS"] or cores())
    try:
        yield
    finally:
        for name, value in variables.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        if "torch" in sys.modules:
            sys.modules["torch"].set_num_threads(count)


def tune() -> None:
    """Set this process up for computing, before torch first does.

    Freed memory is kept, and numbers below 10⁻³⁸ count as 0: an optimizer's average of a gradient that has stayed 0, as
    at the border of MNIST's images, becomes that small, and a processor then takes ten times as long.
    """
    import torch

    memory.keep_freed()
    torch.set_flush_denormal(True)


@contextmanager
def reserved_gpu(device: str, number: int) -> Iterator[int | None]:
    """Make a GPU that no other job has reserved the current one, and yield its index.

    Args:
        device: the setting. Only for `auto` and `cuda` on a machine with several GPUs is one chosen.
        number: of the job. More jobs than GPUs share them by it.
    """
    import torch

    count = torch.cuda.device_count() if device in ("auto", "cuda") else 0
    if count < 2:
        yield None
        return
    visible = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    names = visible[:count] or [str(index) for index in range(count)]
    user = os.getuid() if hasattr(os, "getuid") else 0
    for index in [(number + offset) % count for offset in range(count)]:
        name = names[index].replace("/", "_")
        with file_lock(Path(tempfile.gettempdir()) / f"vae_cli-{user}-gpu-{name}.lock") as is_free:
            if is_free:
                torch.cuda.set_device(index)
                yield index
                return
    torch.cuda.set_device(number % count)
    yield number % count
