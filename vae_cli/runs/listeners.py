"""Who hears of the numbers of a training in this process while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

Listener = Callable[[int, str, Mapping[str, float]], None]  # epoch, split, values

_listeners: list[Listener] = []


@contextmanager
def heard_by(listener: Listener) -> Iterator[None]:
    """Let somebody hear every line of metrics that is written inside."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


def tell(epoch: int, split: str, values: Mapping[str, float]) -> None:
    """Tell all listeners of a line of metrics."""
    for listener in _listeners:
        listener(epoch, split, values)
