"""How much memory there is to be had."""

from __future__ import annotations

from pathlib import Path

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
