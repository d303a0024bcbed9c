"""Downloads: by checksum, from one mirror after the other, by one process at a time, whole or not at all."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from vae_cli.errors import DataError, describe
from vae_cli.system.atomic import atomic_write
from vae_cli.system.locks import file_lock

TIMEOUT = 30.0  # seconds without a connection or a byte
_is_allowed = ContextVar("_is_allowed", default=True)


@dataclass(frozen=True)
class RemoteFile:
    """A file that can be downloaded.

    Args:
        name: in its directory here.
        checksum: such as `md5:…` or `sha256:…`.
        mirrors: its addresses, tried in order: for HTTP, or `gdrive:` and an identity at Google Drive.
    """

    name: str
    checksum: str
    mirrors: tuple[str, ...]


@contextmanager
def without_downloads() -> Iterator[None]:
    """Let nothing be downloaded in this context: data that are not here are an error at once."""
    token = _is_allowed.set(False)
    try:
        yield
    finally:
        _is_allowed.reset(token)


def has_checksum(path: Path, checksum: str) -> bool:
    """Return whether a file exists and has its checksum.

    Raises:
        DataError: if it cannot be read.
    """
    import pooch

    algorithm, _, digest = checksum.partition(":")
    try:
        return path.exists() and pooch.file_hash(str(path), algorithm) == digest
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set data_dir= to another directory") from error


def download(title: str, folder: Path, files: Sequence[RemoteFile], advice: str = "", way: str = "") -> None:
    """Put those of the files into `folder` that are not there with their checksums.

    Args:
        title: the data set's name, as printed.
        folder: the directory of the files, made if need be.
        files: what is needed.
        advice: what else to do where no mirror works, for the end of the error message.
        way: how to name a place that has the files, if not with `data_dir=`.

    Raises:
        DataError: if `folder` cannot be written, or a file cannot be had from any mirror; it says what was tried, and
            what to do by hand.
    """
    missing = [file for file in files if not has_checksum(folder / file.name, file.checksum)]
    if not missing:
        return
    listed = ", ".join(f"{file.name} ({file.checksum})" for file in missing)
    if not _is_allowed.get():
        names = ", ".join(file.name for file in missing)
        fix = way or "name the directory that has it with data_dir="
        raise DataError(f"{title} is not in {folder} ({names} missing); {fix}")
    is_new = not folder.exists()
    by_hand = f"put {listed} into {folder} by hand, or {way or 'name a directory that has it with data_dir='}{advice}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with file_lock(folder / f".{title}.lock", wait=True, title=title):
            for file in missing:
                # Another process may have downloaded it while this one waited for the lock.
                if not has_checksum(folder / file.name, file.checksum):
                    _download(title, folder, file, by_hand)
    except OSError as error:
        fix = way or "name another directory with data_dir="
        raise DataError(f"{error.filename or folder} cannot be written ({describe(error)}); {fix}") from error
    finally:
        if is_new:
            with suppress(OSError):  # it has files, or was not made
                folder.rmdir()


def _download(title: str, folder: Path, file: RemoteFile, by_hand: str) -> None:
    """Download a file from the first mirror that has it, whole."""
    import requests

    path = folder / file.name
    if path.exists():
        print(f"{title}: {path} is broken or incomplete: it is downloaded anew", file=sys.stderr, flush=True)
    for left in folder.glob(f".{file.name}.*.tmp"):  # by a download that was killed
        left.unlink(missing_ok=True)
    failures: list[str] = []
    for address in file.mirrors:
        host = urlsplit(address).netloc or "Google Drive"
        print(f"{title}: downloading {file.name} from {host} to {folder}", file=sys.stderr, flush=True)
        try:
            with atomic_write(path, durable=True) as temporary:
                _fetch(address, temporary)
                if not has_checksum(temporary, file.checksum):
                    raise ValueError(f"what came has not the checksum {file.checksum}")
            return
        except Exception as error:  # requests and gdown have kinds of their own
            if isinstance(error, OSError) and not isinstance(error, requests.RequestException):
                raise  # of this machine, such as a full disk: another mirror would not help
            page = address.replace("gdrive:", "https://drive.google.com/uc?id=")
            failures.append(f"from {host if failures else page} ({_reason(error)})")
    raise DataError(f"{title} needs {path}, and downloading it failed {' and '.join(failures)}; {by_hand}")


def _fetch(address: str, path: Path) -> None:
    """Write what is at an address to a file, with a progress bar on standard error."""
    if address.startswith("gdrive:"):
        try:
            import gdown
        except ImportError as error:
            raise ValueError("it needs gdown: pip install gdown") from error
        gdown.download(id=address.removeprefix("gdrive:"), output=str(path), quiet=False)
    else:
        from pooch import HTTPDownloader

        as_stored = {"Accept-Encoding": "identity"}  # a server must not unpack what is checked as packed
        HTTPDownloader(progressbar=True, chunk_size=1 << 16, timeout=TIMEOUT, headers=as_stored)(
            address, str(path), None
        )


def _reason(error: Exception) -> str:
    """Return why a download failed, without the objects and addresses that requests puts around it."""
    response = getattr(error, "response", None)
    if response is not None:
        return f"HTTP status {response.status_code}, {response.reason}"
    if "timed out" in str(error):
        return f"no answer within {TIMEOUT:g} seconds"
    system = re.search(r"\[Errno -?\d+\] ([^'\")]+)", str(error))
    return system[1] if system else describe(error)
