"""Locks on files, on systems and disks that have them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold a lock on a file, which is made where there is none; whether it could be had.

    The lock ends with its process, however that ends. Where there are no locks, it always can be had.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        yield _lock(handle, wait)
    finally:
        os.close(handle)


def _lock(handle: int, wait: bool) -> bool:
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        return True
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on a file or directory."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # not to wait at a pipe
    except (ImportError, OSError):
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
