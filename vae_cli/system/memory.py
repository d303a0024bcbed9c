"""How much memory there is to be had, and how to keep what one has."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

KEPT = 1 << 28  # bytes at most that were freed and are kept for what is wanted next
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_MMAP_THRESHOLD = 1 << 25  # that glibc takes

LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def available() -> float:
    """Bytes that a program can still take here, by what the system and its container say; infinite if unknown."""
    found = [_number(Path(limit)) for limit in LIMITS]
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(1024 * float(line.split()[1]))
    except (OSError, ValueError, IndexError):
        pass
    return min(found)


def keep_freed() -> None:
    """Let the C library keep freed memory for what is wanted next, where it can be told.

    glibc gives large blocks back to the system at once; then every page of a step's tensors is taken anew, each with
    a fault, which makes an evaluation up to a third slower.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def _number(path: Path) -> float:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # no such container, or "max"
        return float("inf")


def shown(count: float) -> str:
    """Bytes as a person reads them."""
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} PB"
