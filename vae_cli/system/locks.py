"""Exclusive locks on files, held by one process at a time.

On Linux they are `flock`s: the system frees the lock of a process that ends, however it ends, and a lock file that
stays behind blocks nobody. On NFS they hold among machines too (Linux turns them into byte-range locks, which the
server keeps). Where a file system has no locks (some Lustre and FUSE mounts), every process goes on as if it were
alone: work may be done twice, but each file is written atomically.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

PROBED = 0.2  # seconds to keep trying, since `is_locked` of another process holds the file for a moment


@contextmanager
def file_lock(path: Path, wait: bool = False, title: str = "") -> Iterator[bool]:
    """Hold the lock on a file, which exists meanwhile; give whether this process has it.

    Args:
        path: the lock file.
        wait: until another process has released it, however long that takes.
        title: what waits, in the line that says so on standard error; empty for no such line.
    """
    lock = FileLock(path, fallback_to_soft=False)
    is_ours = _acquire(lock, path, wait, title)
    try:
        yield is_ours
    finally:
        if lock.is_locked:
            with suppress(OSError):  # who waits for a file that has gone makes it anew
                path.unlink(missing_ok=True)
        lock.release()


def _acquire(lock: FileLock, path: Path, wait: bool, title: str) -> bool:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=PROBED)
    except Timeout:
        if not wait:
            return False
        if title:
            print(f"{title}: waiting for another process that is making it ready", file=sys.stderr, flush=True)
        lock.acquire()
    except (OSError, NotImplementedError):  # no locks here, or no right to make the file
        return True
    return True


def is_locked(path: Path) -> bool:
    """Return whether a process holds the lock on a file; the file may belong to another user."""
    try:
        import fcntl

        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # not to wait at a pipe
    except (ImportError, OSError):
        return False
    try:
        # A shared lock, unlike filelock's, needs no right to write, and two processes that look do not see each other.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
