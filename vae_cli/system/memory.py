"""Free memory, and the C library's policy for freed memory."""

from __future__ import annotations

import ctypes
import sys
from pathlib import Path

CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
KEPT = 1 << 28  # bytes of freed memory that are kept at most
LARGEST_MMAP_THRESHOLD = 1 << 25  # that glibc takes


def available() -> float:
    """Return the bytes that a program can still take, by the system and its container; infinite if unknown."""
    limits = [float("inf")]
    for path in CGROUP_LIMITS:
        try:
            limits.append(float(Path(path).read_text(encoding="ascii")))
        except (OSError, ValueError):  # no such container, or "max"
            continue
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                limits.append(1024 * float(line.split()[1]))
    except (OSError, ValueError, IndexError):  # not Linux
        pass
    return min(limits)


def keep_freed() -> None:
    """Let glibc keep freed memory for the next tensors.

    By default it gives large blocks back to the system at once; then every page of a step's tensors is taken anew, each
    with a fault, which makes an evaluation up to a third slower.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        mallopt(M_TRIM_THRESHOLD, KEPT)


def format_size(count: float) -> str:
    """Return bytes in a unit that suits them."""
    for unit in ("bytes", "KB", "MB", "GB", "TB"):
        if count < 999.5:  # what three digits round to 1000 is one of the next unit
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.0f} PB"
