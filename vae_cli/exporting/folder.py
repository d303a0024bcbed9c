"""A folder of exported files: written whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vae_cli.errors import ConfigError, OutputError, describe


def check_folder(output: Path, names: Collection[str]) -> None:
    """Refuse an output that is a file, or a folder with other files than those that an export writes.

    Raises:
        ConfigError: naming what is in the way.
    """
    if output.exists() and not output.is_dir():
        raise ConfigError(f"output={output} is a file; name a folder")
    try:
        other = next((path.name for path in sorted(output.glob("*")) if path.name not in names), None)
    except OSError as error:
        raise OutputError(f"output={output} cannot be read ({describe(error)}); name another") from error
    if other is not None:
        raise ConfigError(f"output={output} holds other files ({other}); name another folder, or empty it")


@contextmanager
def atomic_folder(output: Path) -> Iterator[Path]:
    """Give an empty folder beside `output`, which replaces it at the end.

    If anything fails meanwhile, the old folder is as it was.

    Raises:
        OutputError: if it cannot be written.
    """
    output = output.absolute()
    temporary, old = (output.with_name(f".{output.name}.{os.getpid()}.{kind}") for kind in ("tmp", "old"))
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if output.exists():
            output.rename(old)
        try:
            temporary.rename(output)
        except OSError:
            with suppress(OSError):
                old.rename(output)
            raise
    except OSError as error:
        raise OutputError(f"output={output} cannot be written ({describe(error)}); name another") from error
    finally:
        for folder in (temporary, old):
            shutil.rmtree(folder, ignore_errors=True)
