"""A folder of exported files: written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

from vae_cli.errors import ConfigError, OutputError, describe

TEMPORARY = ".vae-export."  # the beginning of the names of folders that a killed export may leave


def check_folder(output: Path, names: Collection[str]) -> None:
    """Refuse an output that is a file, or a folder with other files than those that an export writes.

    Raises:
        ConfigError: naming what is in the way.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output={output} is a file; name a folder")
    try:
        others = (path.name for path in sorted(output.glob("*")) if not path.name.startswith(TEMPORARY))
        other = next((name for name in others if name not in names), None)
    except OSError as error:
        raise OutputError(f"output={output} cannot be read ({describe(error)}); name another") from error
    if other is not None:
        raise ConfigError(f"output={output} holds other files ({other}); name another folder, or empty it")


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """Give an empty folder; at the end it becomes `output`, or its files replace those of a folder that is there.

    A folder that is there stays itself: it may be a mount point, or the one that a shell is in. If anything fails
    meanwhile, its files are as they were.

    Raises:
        OutputError: if it cannot be written.
    """
    output = output.absolute()
    is_new = not output.exists()
    name = f"{TEMPORARY}{os.getpid()}"
    temporary = output.with_name(name) if is_new else output / name
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if is_new:
            temporary.rename(output)
        else:
            _replace_files(temporary, output)
    except OSError as error:
        raise OutputError(f"output={output} cannot be written ({describe(error)}); name another") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_files(source: Path, output: Path) -> None:
    """Move files into a folder, and remove those that are of an older export."""
    names = {path.name for path in source.iterdir()}
    for name in names:
        (source / name).replace(output / name)
    for path in output.iterdir():
        if path.name not in names and path != source:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
