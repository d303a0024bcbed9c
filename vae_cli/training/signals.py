"""Signals that ask a training to end."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

_requested: int | None = None
_reason: str | None = None


def request(signal_number: int | None, reason: str | None = None) -> None:
    """Ask the training in this process to end as it would after a signal, and say for what reason; None takes that
    back."""
    global _requested, _reason
    _requested, _reason = signal_number, reason


class Interrupted(Exception):
    """A signal asked the training to end, and it has saved itself."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(_reason or signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


class Interruption:
    """Inside, SIGINT, SIGTERM and what a batch system sends before it takes a job's place only set `signal_number`,
    for the loop to act on after the step; a second SIGINT ends the process at once. Handlers that somebody else has
    set meanwhile stay. Outside the main thread, where Python allows no handlers, only `request` sets it."""

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def signal_number(self) -> int | None:
        """The signal that asks for the end, if one does."""
        return self._received or _requested

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in _signals():
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number is not None:
            os._exit(128 + signal.SIGINT)
        self._received = number


def _signals() -> list[int]:
    """Those that ask for the end: under Slurm the ones before preemption and the time limit too."""
    warnings = [signal.SIGUSR1, signal.SIGUSR2] if "SLURM_JOB_ID" in os.environ else []
    return [signal.SIGINT, signal.SIGTERM, *warnings]
