"""The one way to write a file: whole, or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def atomic_write(output: Path, durable: bool = False) -> Iterator[Path]:
    """Give a temporary path beside `output`; what was written there replaces the file at the end.

    A process that is killed meanwhile leaves the old file or the new one; with `durable`, so does a machine that loses
    its power.

    Raises:
        OSError: with the name of `output`, if it cannot be written; the old file is as it was.
    """
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
        temporary.replace(output)
        if durable and os.name == "posix":
            _flush_directory(output.parent)
    except OSError as error:
        is_of_system = error.errno is not None  # and not of a library, whose own message it would replace
        if is_of_system and (error.filename is None or str(temporary) in (error.filename, error.filename2)):
            error.filename, error.filename2 = str(output), None
        raise
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def written_or_replaced(output: Path, pattern: str = "*.png") -> str:
    """Return the words about a file, or a folder of files of a pattern, that a command is about to write; they name it.

    A command prints them once it has written it, so that nothing that was there goes without a word.
    """
    with suppress(OSError):  # which the writing meets, too
        if any(output.rglob(pattern)) if output.is_dir() else output.exists():
            return f"replaced {output}"
    return f"written to {output}"


def write_text(path: Path, text: str) -> None:
    """Write a small text file atomically; what is no text of UTF-8, such as a byte of a file's name, is escaped."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_png(path: Path, picture: Image.Image) -> None:
    """Write a picture atomically."""
    with atomic_write(path) as temporary:
        picture.save(temporary, format="PNG")


def _flush_directory(path: Path) -> None:
    """Bring a directory's entries to the disk: only then does a renamed file have its new name after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
