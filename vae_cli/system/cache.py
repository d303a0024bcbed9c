"""The directory of this user's downloads, decoded images, compiled kernels and scripts of pages."""

from __future__ import annotations

from pathlib import Path

from platformdirs import user_cache_dir

from vae_cli.system.paths import provide_home


def cache_dir() -> Path:
    """Return this user's cache directory for vae_cli, which need not exist yet.

    `$XDG_CACHE_HOME/vae_cli` where that variable holds an absolute path, else the system's own place.
    """
    provide_home()
    return Path(user_cache_dir("vae_cli", appauthor=False, opinion=False))
