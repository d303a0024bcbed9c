"""Getting a data set's files: route after route, and no file in place before it is whole and checked."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vae_cli.data.download.lock import alone
from vae_cli.errors import DataError, describe

STALE = 2 * 24 * 3600  # seconds


class FetchError(Exception):
    """One route to the files failed; the message is one line that says how."""


@dataclass(frozen=True)
class Route:
    """One way to get the files.

    Args:
        source: where from, as printed.
        get: downloads into the empty directory it is given and returns the checked files by their final
            names. Raises FetchError; any OSError means that the directory cannot be written.
    """

    source: str
    get: Callable[[Path], dict[str, Path]]


def fetch(name: str, data_dir: Path, folder: str, missing: Sequence[str], routes: Sequence[Route], mend: str) -> None:
    """Put the missing files into `data_dir / folder`, by the first route that works.

    Downloads go into a temporary directory inside `data_dir` and are renamed into place one by one, so that a
    stopped download leaves nothing that looks like data. Of several processes one downloads while the others wait.

    Args:
        name: the data set's, as printed.
        data_dir: the user's directory for data; made if need be.
        folder: the data set's place in it.
        missing: the files to put there, in the place of broken ones; others are left as they are.
        routes: tried in order.
        mend: what the user can do when no route works; ends the error message.

    Raises:
        DataError: if `data_dir` cannot be written, or every route failed; the message tells how each did.
    """
    target = data_dir / folder
    before = {file: _stamp(target / file) for file in missing}
    with contextlib.suppress(OSError):  # said where the files are to be written
        data_dir.mkdir(parents=True, exist_ok=True)
    with alone(data_dir / f".{name}.lock", name) as waited:
        if waited and all(_stamp(target / file) not in (None, stamp) for file, stamp in before.items()):
            return
        _fetch(name, data_dir, target, missing, routes, mend)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What a file has that another in its place has not; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _fetch(name: str, data_dir: Path, target: Path, missing: Sequence[str], routes: Sequence[Route], mend: str) -> None:
    tried = []
    for route in routes:
        with _staging(data_dir) as staging:
            print(f"{name}: downloading to {target} from {route.source}", file=sys.stderr, flush=True)
            try:
                files = route.get(staging)
            except FetchError as error:
                tried.append(f"from {route.source} ({error})")
                continue
            _install({file: files[file] for file in missing}, target)
            return
    raise DataError(f"{name} is not in {target}, and downloading it failed {' and '.join(tried)}; {mend}")


@contextmanager
def _staging(data_dir: Path) -> Iterator[Path]:
    """A temporary directory on the same file system as the files' place."""
    staging = None
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        _clear_away(data_dir)
        staging = Path(tempfile.mkdtemp(prefix=".fetching-", dir=data_dir))
        yield staging
    except OSError as error:
        why = f"{describe(error)}: {error.filename}" if error.filename else describe(error)
        raise DataError(
            f"data_dir={data_dir} cannot be written ({why}); name another directory with data_dir="
        ) from error
    finally:
        if staging is not None:
            shutil.rmtree(staging, ignore_errors=True)


def _clear_away(data_dir: Path) -> None:
    """Remove what downloads that were killed have left, once nobody can be at work on it any more."""
    for path in data_dir.glob(".fetching-*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > STALE:
                shutil.rmtree(path, ignore_errors=True)


def _install(files: dict[str, Path], target: Path) -> None:
    target.mkdir(parents=True, exist_ok=True)
    for name, file in files.items():
        with file.open("rb+") as opened:
            os.fsync(opened.fileno())
        file.replace(target / name)
