"""What a person at a shell can mend, and how an exception becomes one line and an exit status."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Callable

LONGEST = 300
INTERRUPTED = 130  # by Ctrl-C


class UserError(ValueError):
    """A mistake in a setting, a file or the surroundings.

    Its message is one line that names the key, file or value at fault and what to do about it; the commands
    print it without a traceback and exit with status 1.
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


class Busy(UserError):
    """A run directory in which another process is at work."""


def describe(error: BaseException | str) -> str:
    """An error's message without line breaks and not overly long; its type where it has no message.

    An operating system's error loses its number and path, which the caller names, and torch's its C++ stack.
    """
    text = (getattr(error, "strerror", None) or str(error)) if isinstance(error, OSError) else str(error)
    words = " ".join(str(text).partition("\nException raised from")[0].split()) or type(error).__name__
    return words if len(words) <= LONGEST else words[: LONGEST - 1] + "…"


def printable(name: object) -> str:
    """A file's name on one line that every terminal can show, odd characters escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in str(name))


def without_passwords(text: str) -> str:
    """A text in which addresses such as postgresql://user:password@host do not tell the password."""
    return re.sub(r"(://[^:/@\s]+:)[^@\s]+@", r"\1***@", text)


def guard(program: str, job: Callable[[], int]) -> int:
    """The exit status of a job; what it raises is printed as one line, or whole if `VAE_TRACEBACK=1`."""
    try:
        return job()
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except Exception as error:
        if "1" in (os.environ.get("VAE_TRACEBACK"), os.environ.get("HYDRA_FULL_ERROR")):
            traceback.print_exc()
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        return 1


def one_line(error: Exception) -> str:
    """What to tell a person of an error."""
    if isinstance(error, UserError):
        return " ".join(str(error).splitlines())
    first = " ".join(str(error).splitlines()[:1])
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror or first}"
    if isinstance(error, OSError):
        return first or type(error).__name__
    if isinstance(error, MemoryError) or "out of memory" in first or "can't allocate memory" in first:
        return "out of memory: choose a smaller batch_size, latent_dim, mc_samples or network"
    return f"unexpected {type(error).__name__}: {first} (VAE_TRACEBACK=1 shows where)"


def _silence_stdout() -> None:
    """Lets the interpreter flush its output at exit though nobody reads it any more."""
    sink = os.open(os.devnull, os.O_WRONLY)
    os.dup2(sink, sys.stdout.fileno())
