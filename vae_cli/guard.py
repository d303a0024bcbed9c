"""How a command ends: with an exit status, and one line for whatever went wrong."""

import os
import sys
import traceback
from collections.abc import Callable

from vae_cli.errors import UserError

INTERRUPTED = 130  # by Ctrl-C


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
        print(f"{program}: error: {sentence(error)}", file=sys.stderr)
        return 1


def sentence(error: Exception) -> str:
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
