"""The downloads that torchvision's own data sets make, one file or mirror at a time."""

from __future__ import annotations

import contextlib
import errno
import io
import re
import socket
from collections.abc import Callable, Iterator, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from vae_cli.data.download.fetch import FetchError, Route
from vae_cli.errors import describe

TIMEOUT = 30.0  # seconds without an answer or a byte
URL_ERROR = re.compile(r"^(?:<urlopen error )?(?:\[Errno -?\d+\] )?(.*?)>?$")
LOCAL_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EFBIG)


def mirrors(dataset: str) -> Route:
    """The route to the files of a torchvision class such as `"MNIST"`, whose checksums it checks."""
    return Route("torchvision's mirrors", lambda staging: _download(dataset, staging))


def _download(dataset: str, staging: Path) -> dict[str, Path]:
    # torchvision takes seconds to import: only whoever downloads pays for it.
    try:
        import torchvision.datasets
    except (ImportError, OSError, RuntimeError) as error:
        raise FetchError(f"torchvision cannot be imported: {describe(error)}") from error
    original = getattr(torchvision.datasets, dataset)
    failures = []
    for mirror in original.mirrors:
        try:
            _from_mirror(original, mirror, staging)
        except (HTTPException, OSError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
                raise
            failures.append(f"{urlsplit(mirror).netloc}: {_kernel(error)}")
        else:
            names = [file.removesuffix(".gz") for file, _ in original.resources]
            return {name: staging / dataset / "raw" / name for name in names}
    raise FetchError(", ".join(failures) or "it names none")


def archives(dataset: str, address: Callable[[Any, str], str], sums: Mapping[str, str]) -> Route:
    """The route to single files of a torchvision class, each held against its MD5.

    Args:
        dataset: the class's name.
        address: of a file, asked of the class: for HTTP, or `gdrive:` and an identity.
        sums: MD5 of each file.
    """
    return Route("where torchvision says", lambda staging: _download_archives(dataset, address, sums, staging))


def _download_archives(
    dataset: str, address: Callable[[Any, str], str], sums: Mapping[str, str], staging: Path
) -> dict[str, Path]:
    try:
        import torchvision.datasets
    except (ImportError, OSError, RuntimeError) as error:
        raise FetchError(f"torchvision cannot be imported: {describe(error)}") from error
    for file, md5 in sums.items():
        at = address(getattr(torchvision.datasets, dataset), file)
        try:
            with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
                if at.startswith("gdrive:"):
                    identity = at.removeprefix("gdrive:")
                    torchvision.datasets.utils.download_file_from_google_drive(identity, str(staging), file, md5)
                else:
                    torchvision.datasets.utils.download_url(at, str(staging), file, md5)
        except Exception as error:  # gdown has kinds of its own
            if isinstance(error, OSError) and error.errno in LOCAL_ERRORS:
                raise
            why = URL_ERROR.sub(r"\1", describe(error))  # all of it: gdown puts the cause in the middle
            raise FetchError(f"{urlsplit(at).netloc or 'Google Drive'}: {why}") from error
    return {file: staging / file for file in sums}


def _from_mirror(original: type, mirror: str, staging: Path) -> None:
    # One mirror at a time: torchvision gives up on the rest after a timeout or a broken connection.
    single = type(original.__name__, (original,), {"mirrors": [mirror]})
    with _socket_timeout(TIMEOUT), contextlib.redirect_stdout(io.StringIO()):
        single(str(staging), download=True)


def _kernel(error: Exception) -> str:
    """The last line of torchvision's report, which repeats the address on the lines before it."""
    lines = str(error).strip().splitlines()
    return URL_ERROR.sub(r"\1", describe(lines[-1] if lines else error))


@contextlib.contextmanager
def _socket_timeout(seconds: float) -> Iterator[None]:
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
