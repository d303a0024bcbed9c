"""One start of a sweep: how its jobs and the process that started it know of each other through its directory."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vae_cli.errors import describe
from vae_cli.sweeps.jobs import Job, State
from vae_cli.system.locks import is_locked
from vae_cli.training import signals

POLL = 0.5  # seconds between looks whether a job is to stop


@dataclass(frozen=True)
class Start:
    """One start of a sweep, as its jobs see it from wherever they run.

    Args:
        path: the sweep's directory.
        token: its name among other starts.
    """

    path: Path
    token: str

    @property
    def stop(self) -> Path:
        """Exists once all jobs are to save themselves and end."""
        return self.path / f".stop-{self.token}"

    @property
    def alive(self) -> Path:
        """Locked while the process that started the sweep lives."""
        return self.path / f".alive-{self.token}"

    def is_over(self, bound: bool) -> bool:
        """Whether jobs are to end; those `bound` to the process that started them also when that has died."""
        return self.stop.exists() or (bound and not is_locked(self.alive))


def _ending(state: State) -> str:
    row = state.row()
    elbo = "" if row["test_elbo"] is None else f": test elbo {row['test_elbo']:,.2f}, {row['seconds'] or 0:,.1f} s"
    return f"{row['status']}{elbo}" + (f": {row['error']}" if row["error"] else "")


@contextmanager
def on_a_disk_with_room() -> Iterator[None]:
    """Say that a table could not be written, which the next one makes up for."""
    try:
        yield
    except OSError as error:
        print(
            f"{error.filename} could not be written ({describe(error)}); the sweep goes on", file=sys.stderr, flush=True
        )


@contextmanager
def _meanwhile(look: Callable[[], None]) -> Iterator[None]:
    """Look again and again from the background, and once more at the end."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(POLL):
            look()
        look()

    watcher = threading.Thread(target=watch, name="watching the sweep", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


@contextmanager
def watching(is_over: Callable[[], bool]) -> Iterator[None]:
    """Let the training in this process end as soon as the sweep is over."""

    def look() -> None:
        if is_over():
            signals.request_stop(signal.SIGTERM)

    try:
        with _meanwhile(look):
            yield
    finally:
        signals.request_stop(None)


@contextmanager
def telling(left: Sequence[Job], token: str) -> Iterator[None]:
    """Print a line when a job begins and when it has ended, wherever it runs."""
    waiting, begun = list(left), set[int]()

    def look() -> None:
        for job in list(waiting):
            state = State(job.path)
            ended = state.ended_in(token)
            if job.number not in begun and (ended or state.status == "running"):
                begun.add(job.number)
                print(f"{job.title} begins", flush=True)
            if ended:
                waiting.remove(job)
                print(f"{job.title} {_ending(state)}", flush=True)

    with _meanwhile(look):
        yield
