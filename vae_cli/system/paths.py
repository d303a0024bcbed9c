"""Paths as a person writes them, and the home directory that some of them begin with."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress
from pathlib import Path

from vae_cli.errors import UserError


def expand(path: str | Path) -> Path:
    """Return a path with a leading `~` or `~user` replaced; a file of such a name that is nobody's home stays."""
    return Path(os.path.expanduser(path))  # noqa: PTH111, for Path's own fails at any name that is nobody's home


def provide_home() -> None:
    """Set HOME to a private temporary directory where there is no home, as in a container for a user without account.

    Libraries such as Altair and Triton cannot be imported without a home.

    Raises:
        UserError: if another user has taken that directory's name.
    """
    if expand("~").is_absolute():
        return
    home = Path(tempfile.gettempdir()) / f"vae_cli-{os.getuid()}"
    with suppress(FileExistsError):  # also of a link that leads nowhere, which the next lines refuse
        home.mkdir(mode=0o700)
    status = home.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(f"{home} belongs to another user; name a directory of yours with HOME=")
    os.environ["HOME"] = str(home)
