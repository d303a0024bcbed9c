"""Errors that a person can fix, and functions that turn an exception into one line and an exit status."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable, Sequence

LONGEST = 300  # characters of a description
LONGEST_LINE = 2000  # of an error, whatever a file has put into it
INTERRUPTED = 130  # the exit status after Ctrl-C


class UserError(ValueError):
    """A mistake in a setting, a file or the surroundings.

    Its message is one line that names the key, file or value at fault and says what to do about it. The commands print
    it without a traceback and exit with status 1.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.splitlines()))


class ConfigError(UserError):
    """A setting that is unknown, of the wrong type, out of range, or at odds with another."""


class DataError(UserError):
    """A data set that is missing, broken, or not what the settings say."""


class CheckpointError(UserError):
    """A checkpoint that is missing, broken, or not one of ours."""


class OutputError(UserError):
    """A file of a run that cannot be written."""


class ExportError(UserError):
    """A part of a model that cannot be exported."""


class DirectoryInUse(UserError):
    """A run directory in which another process is training."""


class TrainingError(UserError):
    """A training that diverged."""


class ConnectionLost(UserError):
    """Another of the processes that train together has ended."""


def describe(error: BaseException | str) -> str:
    """Return an error's message on one line, not overly long; the name of its type where it has none.

    An operating system's error loses its number and path, which the caller names, and torch's its C++ stack.
    """
    if isinstance(error, KeyError) and error.args:
        return f"{str(error.args[0])[:LONGEST]} is missing"
    text = (getattr(error, "strerror", None) or str(error)) if isinstance(error, OSError) else str(error)
    words = " ".join(str(text).partition("\nException raised from")[0].split()) or type(error).__name__
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def first_line(error: BaseException) -> str:
    """Return an error's message without what follows on further lines; the name of its type where it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def one_line(error: BaseException) -> str:
    """Return the line that a command prints for an error that ends it."""
    if isinstance(error, UserError):
        return str(error)
    first = first_line(error)
    if isinstance(error, OSError):
        return f"{error.filename}: {describe(error)}" if error.filename is not None else describe(error)
    if isinstance(error, MemoryError) or "out of memory" in first or "can't allocate memory" in first:
        return "out of memory: choose a smaller batch_size, latent_dim, mc_samples or network"
    return f"unexpected {type(error).__name__}: {first} (VAE_TRACEBACK=1 shows where)"


def print_error(program: str, error: BaseException) -> None:
    """Print an error as one line on stderr, after its traceback if VAE_TRACEBACK=1."""
    if "1" in (os.environ.get("VAE_TRACEBACK"), os.environ.get("HYDRA_FULL_ERROR")):
        traceback.print_exception(error)
    line = one_line(error)
    line = line if len(line) <= LONGEST_LINE else line[: LONGEST_LINE - 1] + "…"
    print(f"{program}: error: {printable(line)}", file=sys.stderr)


def exit_status(program: str, job: Callable[[], int]) -> int:
    """Return the exit status of a job. An exception is printed as one line and gives 1."""
    try:
        return job()
    except Exception as error:
        print_error(program, error)
    return 1


def missing_extra(setting: str, error: ImportError, extra: str) -> ConfigError:
    """Return the error about a setting that needs a library of one of this package's extras."""
    name = error.name or describe(error)
    return ConfigError(f"{setting} needs {name}, which is not installed: pip install 'vae-cli[{extra}]'")


def printable(name: object) -> str:
    """Return a file's name on one line that every terminal can show, with odd characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(name))


def at(row: int) -> str:
    """Return where a row stands, from its number."""
    return f"row {row} (counted from 0)"


def shortened(names: Sequence[object], most: int = 20) -> str:
    """Return names on one line, the first of them if there are many."""
    return ", ".join(map(printable, names[:most])) + (", …" if len(names) > most else "")


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 image, 2,000 images, 3 classes."""
    ending = "" if number == 1 else "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}{ending}"


def without_passwords(text: str) -> str:
    """Return a text with the passwords in addresses such as postgresql://user:password@host hidden."""
    return re.sub(r"(://[^:/@\s]*:)[^@\s]+@", r"\1***@", text)
