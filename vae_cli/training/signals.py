"""Signals that ask a training to end."""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType
from typing import Any

_requested: int | None = None
_reason: str | None = None


def request_stop(signal_number: int | None, reason: str | None = None) -> None:
    """Ask the training in this process to end as after a signal, for a reason to print. None takes that back."""
    global _requested, _reason
    _requested, _reason = signal_number, reason


def hangup() -> list[int]:
    """Return SIGHUP, which a closed terminal sends; nothing where it is ignored, as under nohup, or there is none."""
    number = getattr(signal, "SIGHUP", None)
    return [] if number is None or signal.getsignal(number) == signal.SIG_IGN else [number]


class Interrupted(Exception):
    """A signal asked the training to end, and it has saved itself."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(_reason or signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


class StopSignals:
    """Catches the signals that ask a training to end, for the loop to act on after the step.

    They are SIGINT, SIGTERM, SIGHUP and, under Slurm, those before preemption and the time limit. A second SIGINT ends
    the process at once; where Python is interactive, as in a notebook, it is a KeyboardInterrupt. Handlers that other
    code sets meanwhile stay. Outside the main thread, where Python allows no handlers, only `request_stop` counts.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._before: dict[int, Any] = {}

    @property
    def received(self) -> int | None:
        """The number of the signal that asks for the end, if one does."""
        return self._received or _requested

    def __enter__(self) -> StopSignals:
        if threading.current_thread() is threading.main_thread():
            warnings = [signal.SIGUSR1, signal.SIGUSR2] if "SLURM_JOB_ID" in os.environ else []
            for number in (signal.SIGINT, signal.SIGTERM, *hangup(), *warnings):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.received is not None:
            if hasattr(sys, "ps1"):
                raise KeyboardInterrupt
            os._exit(128 + signal.SIGINT)
        self._received = number
