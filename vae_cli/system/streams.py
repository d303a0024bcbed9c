"""Standard streams that never end a run: closed, without a reader, on a full disk, or without the characters."""

from __future__ import annotations

import io
import os
import select
import sys
from pathlib import Path
from typing import Any, TextIO


class _Output(io.FileIO):
    """A descriptor whose writes never fail: what cannot be written is dropped, and the error is kept."""

    failure: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = error
            return memoryview(data).nbytes


def prepare() -> None:
    """Give this process three streams: /dev/null for one that is closed, and outputs whose writes never fail.

    A character that an output's encoding lacks becomes a question mark. A stream that other code has replaced is left
    alone. Another call changes nothing.
    """
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        stream = getattr(sys, name)
        if stream is None:
            stream = null_file("w" if descriptor else "r")  # on the lowest free descriptor, which is the closed one
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)
        elif descriptor and stream is getattr(sys, f"__{name}__"):
            stream.flush()
            buffer = io.BufferedWriter(_Output(stream.fileno(), "w", closefd=False))
            at_once = {"line_buffering": stream.line_buffering, "write_through": stream.write_through}
            setattr(sys, name, io.TextIOWrapper(buffer, stream.encoding, "replace", **at_once))


def null_file(mode: str = "w") -> TextIO:
    """Open a text file that is empty and takes whatever is written to it."""
    return Path(os.devnull).open(mode, encoding="utf-8", errors="replace")  # type: ignore[return-value]


def flush() -> OSError | None:
    """Flush both outputs; return the error with which anything written to standard output was dropped, if any."""
    sys.stderr.flush()
    sys.stdout.flush()
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "failure", None)


def has_reader() -> bool:
    """Return False where standard output is a pipe that nobody reads any more, as far as the system tells."""
    if not hasattr(select, "poll"):  # on Windows
        return True
    poll = select.poll()
    poll.register(1, 0)
    return poll.poll(0) != [(1, select.POLLERR)]  # a terminal that has gone is POLLHUP too
