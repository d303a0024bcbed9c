"""What the processes that train one model do together; without a group of processes each function does nothing.

Every function must be called by all processes at the same point of the training. When a process dies its connections
break, which ends the others' next collective with a ConnectionLost; torchrun ends those that do not notice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from vae_cli.distributed.ranks import Rank
from vae_cli.errors import ConnectionLost, describe
from vae_cli.system import plain_data

T = TypeVar("T")

TIMEOUT = timedelta(minutes=30)  # that a process whose connection stands is waited for


def connect(rank: Rank) -> None:
    """Join the process group that the launcher's environment describes: gloo on CPUs, NCCL on GPUs."""
    if rank.world_size > 1:
        on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", timeout=TIMEOUT)


def is_connected() -> bool:
    """Return whether this process is one of several."""
    return dist.is_available() and dist.is_initialized()


def _collective(operation: Callable[..., Any], *arguments: Any) -> None:
    """Run an operation of torch.distributed.

    Raises:
        ConnectionLost: if another process has ended.
    """
    try:
        operation(*arguments)
    except RuntimeError as error:
        count = dist.get_world_size()
        raise ConnectionLost(f"another of the {count} processes has ended ({describe(error)[:80]})") from error


def all_reduce(values: Tensor) -> Tensor:
    """Replace values by their sum over all processes."""
    if is_connected():
        _collective(dist.all_reduce, values)
    return values


def all_reduce_max(*values: int) -> tuple[int, ...]:
    """Return the largest of each value over all processes. No GPU is waited for."""
    if not is_connected():
        return values
    largest = torch.tensor(values, dtype=torch.int64)
    _collective(dist.all_reduce, largest, dist.ReduceOp.MAX)
    return tuple(largest.tolist())


def barrier() -> None:
    """Wait until all processes have come this far."""
    all_reduce_max(0)


def all_reduce_gradients(parameters: Sequence[Tensor], sums: Tensor, weight: float) -> Tensor:
    """Replace every gradient by the weighted sum of all processes' gradients, in one message.

    Args:
        parameters: whose gradients are shared. A parameter without a gradient in any process keeps none.
        sums: (S,), further numbers to be summed.
        weight: of this process's gradients. With 0 it contributes nothing, not even a NaN.

    Returns:
        The sums over all processes.
    """
    if not is_connected():
        return sums
    dtypes = {parameter.dtype for parameter in parameters} | {sums.dtype}
    widest = max(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    has_gradient = [float(p.grad is not None and weight > 0) for p in parameters]
    counts = sums.new_ones(len(has_gradient)) if all(has_gradient) else sums.new_tensor(has_gradient)
    parts = [*(gradient.detach().flatten() * weight for gradient in gradients), sums, counts]
    message = torch.cat([part.to(widest) for part in parts])
    message = all_reduce(message if weight else torch.zeros_like(message))
    *shared, total, counts = message.split([len(part) for part in parts])
    # Reading the counts waits for the device, so only a process that lacked a gradient does.
    should_keep = has_gradient if all(has_gradient) else counts.tolist()
    for parameter, gradient, keep in zip(parameters, shared, should_keep):
        parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if keep else None
    return total.to(sums.dtype)


def broadcast_tensors(tensors: Iterable[Tensor]) -> None:
    """Give every process rank 0's values of the tensors."""
    if not is_connected():
        return
    for tensor in tensors:
        values = tensor.detach().contiguous()
        _collective(dist.broadcast, values.reshape(-1).view(torch.uint8), 0)
        if values.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(values)


def broadcast(value: T) -> T:
    """Return rank 0's plain data in every process, whatever the others pass."""
    if not is_connected():
        return value
    content = plain_data.to_bytes(value) if dist.get_rank() == 0 else b""
    size = torch.tensor([len(content)])
    _collective(dist.broadcast, size, 0)
    buffer = torch.frombuffer(bytearray(content or int(size)), dtype=torch.uint8)
    _collective(dist.broadcast, buffer, 0)
    return value if content else plain_data.from_bytes(bytes(buffer.numpy()))


@contextmanager
def one_process_per_machine_first(rank: Rank) -> Iterator[None]:
    """Let one process of every machine run the block before its others, which then find what it left on the disk."""
    if rank.local_rank:
        barrier()
    yield
    if not rank.local_rank:
        barrier()
