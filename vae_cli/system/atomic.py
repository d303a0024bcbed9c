"""A file that is written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def atomic_write(output: Path) -> Iterator[Path]:
    """A temporary path beside a file, which takes the file's place at the end."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        temporary.replace(output)
    except OSError as error:
        if error.filename == str(temporary):
            error.filename, error.filename2 = str(output), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
