"""The processes that train one model together, each on its part of every batch.

A launcher such as torchrun starts them and says in the environment how many there are. The first one reads the
command line, writes the run directory and speaks; the others are called by it, and are silent. What they must know of
each other beside their sums, whether one has failed above all, stands in the store that the launcher's address names.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vae_cli.errors import ConfigError, UserError, describe

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import Store, Work

T = TypeVar("T")

LONGEST_STEP = timedelta(minutes=30)  # that a process is waited for whose connection stands
ARRIVAL = 600.0  # seconds in which all have started
ANSWER = 5.0  # seconds in which those on other machines notice that a process is missing
FAREWELL = 60.0  # seconds in which the first process has written and said how the training ended
POLL = 0.05  # seconds
LOOK = timedelta(seconds=0.3)  # between looks whether another has failed
VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


class Lost(UserError):
    """Another process has failed, or has gone without a word."""


@dataclass(frozen=True)
class Seat:
    """Which process this is: number `rank` of `count`, and number `local_rank` of `local_count` on its machine."""

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1


def _machine() -> str:
    """The machine, and on it the space in which a process's number means something."""
    told = [socket.gethostname()]
    with suppress(OSError):
        told.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        told.append(str(Path("/proc/self/ns/pid").readlink()))
    return "/".join(told)


def seat() -> Seat:
    """Which process a launcher says that this is; the only one where there is no launcher.

    Raises:
        ConfigError: if the launcher's variables are no numbers that go together.
    """
    if not all(os.environ.get(name) for name in VARIABLES):
        return Seat()
    try:
        rank, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        local_rank = int(os.environ.get("LOCAL_RANK", rank))
        local_count = int(os.environ.get("LOCAL_WORLD_SIZE", count))
        if not (0 <= rank < count and 0 <= local_rank < local_count <= count):
            raise ValueError
    except ValueError as error:
        told = " ".join(f"{name}={os.environ[name]}" for name in ("RANK", "WORLD_SIZE"))
        raise ConfigError(f"{told} in the environment name no process of several; start them with torchrun") from error
    return Seat(rank, count, local_rank, local_count)


class Processes:
    """All processes that train one model, as one of them sees them; by default this one alone, which pays nothing.

    Every method that says "all" must be called by all processes at the same point of the training. Whoever is in one
    when another process fails, or is killed, gets a `Lost`.
    """

    def __init__(self, seat: Seat | None = None) -> None:
        self.seat = seat or Seat()
        self.rank, self.count = self.seat.rank, self.seat.count
        self._store: Store | None = None
        self._silent: list[int] = []
        self.is_broken = False  # with a sum that is never finished, for which the interpreter would wait at its end

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def part(self, images: int) -> slice:
        """The place of this process among so many images: in order of rank and as even as can be, perhaps empty."""
        return slice(images * self.rank // self.count, images * (self.rank + 1) // self.count)

    # Sums: of all

    def pool(self, parameters: Sequence[Tensor], sums: Tensor, weight: float) -> Tensor:
        """Make every gradient the sum of all processes' gradients, each times its process's weight.

        What travels with them in the same message: `sums` (S,), which is returned summed, and who has which gradients:
        a parameter keeps none where no process has one. With the weight 0 nothing is contributed, not even NaN.
        """
        import torch

        if self.count == 1:
            return sums
        kinds = {parameter.dtype for parameter in parameters} | {sums.dtype}
        widest = max(kinds, key=lambda kind: torch.finfo(kind).bits)
        present = [float(parameter.grad is not None and weight > 0) for parameter in parameters]
        having = sums.new_ones(len(present)) if all(present) else sums.new_tensor(present)
        parts = [*(_flat(parameter) * weight for parameter in parameters), sums, having]
        flat = torch.cat([part.to(widest) for part in parts])
        flat = self.total(flat if weight else torch.zeros_like(flat))
        *gradients, summed, having = flat.split([len(part) for part in parts])
        # To ask for it waits for the device: only a model with parameters that this process did not need does so.
        had = present if all(present) else having.tolist()
        for parameter, gradient, some in zip(parameters, gradients, had):
            parameter.grad = gradient.view_as(parameter).to(parameter.dtype) if some else None
        return summed.to(sums.dtype)

    def total(self, values: Tensor) -> Tensor:
        """The sum of all processes' values, in their place."""
        if self.count > 1:
            import torch.distributed as dist

            self._done(partial(dist.all_reduce, values, async_op=True), values.is_cuda)
        return values

    def agree(self, *values: int) -> tuple[int, ...]:
        """The largest of all processes' values, one by one; no device is waited for."""
        if self.count == 1:
            return values
        import torch
        import torch.distributed as dist

        found = torch.tensor(values, dtype=torch.int64)
        self._done(partial(dist.all_reduce, found, dist.ReduceOp.MAX, async_op=True))
        return tuple(found.tolist())

    # What the first process has: to all

    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Give all processes' tensors the first one's values."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        for tensor in tensors:
            values = tensor.detach().contiguous()
            flat = values.reshape(-1).view(torch.uint8)
            self._done(partial(dist.broadcast, flat, 0, async_op=True), flat.is_cuda)
            if values.data_ptr() != tensor.data_ptr():
                tensor.detach().copy_(values)

    def told(self, value: T) -> T:
        """The first process's plain data, whatever the others give."""
        if self.count == 1:
            return value
        import torch

        file = io.BytesIO()
        if self.is_first:
            torch.save(value, file)
        size = torch.tensor([file.tell()])
        self.copy_first([size])
        content = torch.frombuffer(bytearray(file.getbuffer() if self.is_first else int(size)), dtype=torch.uint8)
        self.copy_first([content])
        if self.is_first:
            return value
        return torch.load(io.BytesIO(content.numpy().tobytes()), weights_only=True)

    # Waiting, as long as it takes and nobody fails

    def _done(self, start: Callable[[], Work | None], on_gpu: bool = False) -> None:
        """Wait for what the processes do together; a GPU is left to do it in its own time.

        Whoever fails says so in the store and waits there, since a connection may outlive its group.
        """
        try:
            work = start()
            assert work is not None, "this process is one of the group"
            if on_gpu:
                work.wait()
                return
            while not self._is_done(work):
                if self._is_over():
                    raise self._lost("")
        except RuntimeError as error:
            raise self._lost(describe(error)) from error

    @staticmethod
    def _is_done(work: Work) -> bool:
        """Wait a little."""
        try:
            work.wait(LOOK)
        except RuntimeError:  # it takes longer; or it has failed, which is raised again
            if not work.is_completed():
                return False
            work.wait()
        return True

    @contextmanager
    def one_ahead(self) -> Iterator[None]:
        """Lets one process of every machine through before its others, which then find on the disk what it put
        there; after it, all are waited for."""
        if self.count == 1:
            yield
            return
        done = f"ahead/{_machine()}"
        if self.seat.local_rank:
            self._wait(lambda: self._known(done))
        yield
        if not self.seat.local_rank:
            self._tell(done)
        self._meet("through")

    def _meet(self, name: str, longest: float = float("inf")) -> None:
        """Wait for all."""
        self._tell(f"{name}/{self.rank}")
        names = [f"{name}/{rank}" for rank in range(self.count)]
        self._wait(lambda: self._known(*names), longest)

    def _wait(self, is_so: Callable[[], bool], longest: float = float("inf")) -> None:
        began = time.monotonic()
        while not is_so():
            missing = any(self._is_gone(rank, 0) for rank in range(self.count) if rank != self.rank)
            if self._is_over() or (missing and not is_so()):  # who has just come this far may have ended since
                raise self._lost("")
            if time.monotonic() - began > longest:
                raise Lost(f"not all of the {self.count} processes have started within {longest:.0f} seconds")
            time.sleep(POLL)

    # Beginning

    def call(self) -> None:
        """Connect all; the others wait for the first one to do so in `follow`."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as dist

        if self.is_first:
            self._tell("called")
        self._tell(f"process/{self.rank}", f"{os.getpid()} {_machine()}")
        self._meet("here", ARRIVAL)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() and dist.is_nccl_available() else "gloo"
        store = dist.PrefixStore("group", self._connected())
        try:
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.count, timeout=LONGEST_STEP)
        except RuntimeError as error:
            raise self._lost(describe(error)) from error

    def _is_over(self) -> bool:
        """Whether a process has failed, or has noticed that another is not there, or the first one has ended."""
        return any(self._known(name) for name in ("failed", "trouble", "done"))

    def _connected(self) -> Store:
        """The store that all processes see."""
        import torch.distributed as dist

        if self._store is None:
            store = next(dist.rendezvous("env://", timeout=timedelta(seconds=ARRIVAL)))[0]
            self._store = dist.PrefixStore(f"vae_cli/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        return self._store

    def _tell(self, name: str, value: str = "") -> None:
        self._connected().set(name, value)

    def _known(self, *names: str) -> bool:
        return self._connected().check(list(names))

    # Ending

    def leave(self) -> None:
        """Close the connections, once all have come this far."""
        if self.count > 1:
            import torch.distributed as dist

            self._meet("end")
            dist.destroy_process_group()

    def close(self) -> None:
        """Close the connections, however far the others are."""
        import torch.distributed as dist

        if dist.is_initialized() and not self.is_broken:
            dist.destroy_process_group()

    def _lost(self, why: str) -> Lost:
        """Which process has failed, and how, as far as anybody knows."""
        self.is_broken = True
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun's, which must not come before what is said here
        others = [rank for rank in range(self.count) if rank != self.rank]
        with suppress(RuntimeError):  # the store has gone with its process
            self._tell("trouble")
            self._tell(f"noticed/{self.rank}")
            began = time.monotonic()
            while not (silent := [rank for rank in others if self._is_gone(rank, time.monotonic() - began)]):
                if self._known("failed"):
                    rank, _, sentence = self._connected().get("failed").decode().partition(" ")
                    return Lost(f"rank {rank} of {self.count}: {sentence}")
                if self._known("done"):
                    return Lost(f"rank 0 of {self.count} has ended")
                if all(self._known(f"noticed/{rank}") for rank in others):
                    return Lost(f"the {self.count} processes have lost each other ({why})")
                time.sleep(POLL)
            others = silent
        self._silent = others
        names = ", ".join(map(str, others))
        return Lost(
            f"no answer from rank {names} of {self.count}: killed, by the system perhaps for want of memory, or its "
            "machine has gone"
        )

    def _is_gone(self, rank: int, waited: float) -> bool:
        """Whether a process has ended without a word: by what the system says of one on this machine, which may have
        much to do before it looks up; of one elsewhere by how long it has been waited for."""
        if self._known(f"noticed/{rank}"):
            return False
        if self._known(f"process/{rank}"):
            pid, _, host = self._connected().get(f"process/{rank}").decode().partition(" ")
            if host == _machine() and Path("/proc/self/stat").exists():
                return _has_ended(int(pid)) or waited > FAREWELL
        return waited > ANSWER

    def dismiss(self, status: int) -> None:
        """Of the first process, at its end: let the others go."""
        with suppress(RuntimeError):  # the store has gone, and the others with it
            self._tell("done", str(status))
            # The store may be this very process's, and gone before the others have looked.
            names = [f"gone/{rank}" for rank in range(1, self.count) if rank not in self._silent]
            began = time.monotonic()
            while not self._known(*names) and time.monotonic() - began < ANSWER:
                time.sleep(POLL)
        self.close()

    def is_called(self) -> bool:
        """Of the others: wait for the first process; False if it has ended without a training."""
        while not self._known("called"):
            if self._known("done"):
                return False
            time.sleep(POLL)
        return True

    def status(self) -> int:
        """Of the others: how the first process ended, once it has; 1 if that is not to be known."""
        began = time.monotonic()
        with suppress(RuntimeError):
            while time.monotonic() - began < FAREWELL:
                if self._known("done"):
                    return int(self._connected().get("done"))
                time.sleep(POLL)
        return 1

    def take_leave(self) -> None:
        """Of the others, at the end of each: let the first process end too."""
        with suppress(RuntimeError):
            self._tell(f"gone/{self.rank}")
        self.close()

    def give_up(self, error: Exception, sentence: str) -> str | None:
        """Of the others: tell the first process how this one failed, and let it say so.

        Returns:
            What this process must say itself, since no other is left that could.
        """
        lost = isinstance(error, Lost)
        with suppress(RuntimeError):
            if not lost:
                self._connected().compare_set("failed", "", f"{self.rank} {sentence}")
                self._tell(f"noticed/{self.rank}")
            began = time.monotonic()
            while time.monotonic() - began < FAREWELL:
                if self._known("done"):
                    return None
                if lost and self._is_gone(0, time.monotonic() - began):
                    break
                time.sleep(POLL)
            if any(self._known(f"noticed/{rank}") for rank in range(self.rank)):
                return None
        return sentence


ALONE = Processes()


def _has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def _flat(parameter: Tensor) -> Tensor:
    import torch

    return (torch.zeros_like(parameter) if parameter.grad is None else parameter.grad).detach().flatten()
