"""Signals that ask a training to end."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any


class Interrupted(Exception):
    """A signal asked the training to end, and it has saved itself."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal.Signals(signal_number).name)
        self.exit_status = 128 + signal_number


class Interruption:
    """Inside, SIGINT and SIGTERM only set `signal_number`, for the loop to act on after the step; a second SIGINT
    ends the process at once. Handlers that somebody else has set meanwhile stay. Outside the main thread, where Python
    allows no handlers, it does nothing."""

    def __init__(self) -> None:
        self.signal_number: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, handler)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT and self.signal_number is not None:
            os._exit(128 + signal.SIGINT)
        self.signal_number = number
