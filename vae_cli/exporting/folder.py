"""A folder of exported files: written whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
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
def atomic_folder(output: Path, names: Collection[str]) -> Iterator[Path]:
    """Give an empty folder; at the end it becomes `output`, or its files go into a folder that is there.

    A folder that is there stays itself: it may be a mount point, or the one that a shell is in. If anything fails
    meanwhile, its files are as they were.

    Args:
        output: the folder.
        names: of the files that are asked for. In a folder that is there those of them that were not written are
            removed, since they are of another export; files of other names stay.

    Raises:
        OutputError: if it cannot be written.
    """
    output = output.absolute()
    is_new = not output.exists()
    place = output.parent if is_new else output
    temporary: Path | None = None
    try:
        if not place.exists():
            place.mkdir(parents=True)
        _remove_abandoned(place)
        temporary = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}{os.getpid()}.", dir=place))
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        old.mkdir()
        yield new
        if is_new:
            new.rename(output)
        else:
            _replace_files(new, output, names, old)
    except OSError as error:
        raise OutputError(f"output={output} cannot be written ({describe(error)}); name another") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _replace_files(new: Path, output: Path, names: Collection[str], old: Path) -> None:
    """Move files into a folder, and those that they replace out of it; put these back if that fails."""
    try:
        for name in names:
            if (output / name).exists():
                (output / name).replace(old / name)
        for path in new.iterdir():
            path.replace(output / path.name)
    except OSError:
        for path in old.iterdir():
            path.replace(output / path.name)
        raise


def _remove_abandoned(place: Path) -> None:
    """Remove what killed exports have left in a folder."""
    for path in place.glob(f"{TEMPORARY}*"):
        try:
            os.kill(int(path.name.split(".")[2]), 0) if os.name == "posix" else None
        except ProcessLookupError:
            shutil.rmtree(path, ignore_errors=True)
        except (OSError, ValueError):  # another's process, or another's folder
            continue
