"""One process at a time where several may want to make the same files."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def alone(lock: Path, title: str) -> Iterator[bool]:
    """Waits for whoever is inside with the same lock file, and says so; the value is whether anybody was.

    The system frees the lock of a process that ends, however it does; one that ends well takes the file away. Where
    there are no locks, or the file cannot be opened, everybody goes on: two then do the same work twice.
    """
    try:
        file, waited = _taken(lock, title)
    except (ImportError, OSError):
        yield False
        return
    try:
        yield waited
    finally:
        with suppress(OSError):
            lock.unlink(missing_ok=True)
        os.close(file)


def _taken(lock: Path, title: str) -> tuple[int, bool]:
    """The opened lock file, locked, and whether somebody else had it."""
    import fcntl

    waited = False
    while True:
        file = _opened(lock)
        try:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not waited:
                    print(f"{title}: waiting for another process that is making it ready", file=sys.stderr, flush=True)
                waited = True
                fcntl.flock(file, fcntl.LOCK_EX)
            if _is(lock, file):  # and not one that was taken away, which excludes nobody
                return file, waited
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _opened(lock: Path) -> int:
    try:
        return os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:  # another user's, which can be waited for too
        return os.open(lock, os.O_RDONLY)


def _is(lock: Path, file: int) -> bool:
    try:
        return os.path.samestat(lock.stat(), os.fstat(file))
    except FileNotFoundError:
        return False
