"""Where this user's downloads, decoded images and scripts of pages lie unless a setting says otherwise."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_dir() -> Path:
    """This user's cache directory for vae_cli; it need not exist yet."""
    return _user_cache(sys.platform) / "vae_cli"


def _user_cache(platform: str) -> Path:
    if platform == "win32":
        return _absolute("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    if platform == "darwin":
        return Path.home() / "Library" / "Caches"
    return _absolute("XDG_CACHE_HOME") or Path.home() / ".cache"


def _absolute(variable: str) -> Path | None:
    """The directory that a variable names; a relative one does not count, by the XDG rules."""
    path = Path(os.environ.get(variable, ""))
    return path if path.is_absolute() else None
