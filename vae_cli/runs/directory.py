"""The files that a training leaves in its run directory, and the log that it prints."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from tqdm import tqdm

from vae_cli.errors import DirectoryInUse, describe, one_line
from vae_cli.runs.reader import LOCK
from vae_cli.system.atomic import write_png, write_text
from vae_cli.system.locks import file_lock

log = logging.getLogger("vae_cli")

LABEL, WIDTH = 12, 80  # characters of a line's label and of a line on the terminal
_BY_WORDS: Any = {"break_long_words": False, "break_on_hyphens": False}

StepRecord = tuple[int, int, dict[str, float]]  # step, epoch, values
OnMetrics = Callable[[int, str, Mapping[str, float]], None]  # epoch, split, values


class Logger(Protocol):
    """Where a run's numbers and pictures go besides its directory; `vae_cli.loggers` has them."""

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None: ...

    def metrics(self, split: str, values: Mapping[str, Any], step: int, epoch: int) -> None: ...

    def steps(self, records: list[StepRecord]) -> None: ...

    def picture(self, name: str, picture: Image.Image, step: int) -> None: ...

    def finish(self, status: str, test: Mapping[str, Any] | None) -> None: ...


class RunDirectory:
    """One run's directory: log, metrics, pictures, summary and checkpoints.

    Inside a `with` block it is locked and listens to the log. Pictures and the log that cannot be written are reported
    and never end a training. A line of metrics, a checkpoint or the summary that cannot raises an OSError that names
    the file.

    Args:
        path: the directory, made if need be.
        resumed_at: the step at which an earlier training in it is resumed.

    Raises:
        DirectoryInUse: if another process is training in it.
    """

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        self.path = path.absolute()
        self._resumed_at = resumed_at
        self.written: set[str] = set()  # what a training can do without, by the names of `attempt`
        self.on_metrics: OnMetrics | None = None  # called with every line of metrics
        self._logger: Logger | None = None
        self.status = "failed"
        self._is_before_resuming = resumed_at is not None
        self.warnings: list[str] = []
        self._summary: dict[str, Any] = dict.fromkeys(("epochs", "best_epoch", "validation", "test"))
        self._stack = ExitStack()
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> RunDirectory:
        if not self._stack.enter_context(file_lock(self.path / LOCK)):
            self._stack.close()
            raise DirectoryInUse(f"{self.path} is being trained by another process; let it end first")
        for temporary in self.path.glob("checkpoints/.*.tmp"):  # of a process that was killed while writing
            temporary.unlink(missing_ok=True)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        self._add_handler(_Collector(self.warnings))
        self._add_handler(_Console(logging.INFO))
        self.attempt(self._open_log_file, "train.log")
        return self

    def _open_log_file(self) -> None:
        handler = _LogFile(self.path / "train.log", encoding="utf-8", errors="backslashreplace")
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._add_handler(handler)

    def _add_handler(self, handler: logging.Handler) -> None:
        def remove() -> None:
            log.removeHandler(handler)
            with suppress(OSError):  # of lines that the disk had no room for
                handler.close()

        log.addHandler(handler)
        self._stack.callback(remove)

    def __exit__(self, *_: object) -> None:
        with self._stack:
            for text in list(self.warnings):
                log.warning("%s", text)  # where it does not scroll away
            if self._logger is not None:
                self._logger.finish(self.status, self._summary["test"])

    def log_to(self, logger: Logger, config: dict[str, Any]) -> None:
        """Send numbers and pictures to a logger too, whose failures are its own to report.

        Raises:
            ConfigError: if it cannot be used.
        """
        logger.start(self.path, config, self._resumed_at)
        self._logger = logger

    # What is read again: checkpoints, the config, metrics, the summary

    def checkpoint(self, name: str) -> Path:
        """Return the path of a checkpoint, `best` or `last`."""
        return self.path / "checkpoints" / f"{name}.safetensors"

    def write(self, name: str, text: str) -> None:
        """Replace a small text file as a whole."""
        write_text(self.path / name, text)

    def metrics(self, epoch: int, step: int, split: str, values: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl and a point to the logger's curves, of a list one for each entry."""
        record = {"epoch": epoch, "step": step, "split": split, **_jsonable(values)}
        path = self.path / "metrics.jsonl"
        try:
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")
                file.flush()
                os.fsync(file.fileno())  # a checkpoint must not outlive the numbers that belong to it
        except OSError as error:
            error.filename, error.filename2 = str(path), None
            raise
        if self._logger is not None:
            self._logger.metrics(split, dict(_scalars(values)), step, epoch)
        if self.on_metrics is not None:
            self.on_metrics(epoch, split, values)

    def steps(self, records: list[StepRecord]) -> None:
        """Send the numbers of single steps, if there are any, to the logger's curves."""
        if self._logger is not None and records:
            self._logger.steps(records)

    def cut_metrics(self, epoch: int, step: int) -> None:
        """Drop from metrics.jsonl what a resumed training will write again, and any line cut short."""
        path, kept = self.path / "metrics.jsonl", []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            with suppress(ValueError, TypeError, KeyError):  # of a line cut short, or of another program
                record = json.loads(line)
                if record["epoch"] <= epoch and record["step"] <= step and record["split"] != "test":
                    kept.append(line)
        self.write("metrics.jsonl", "".join(f"{line}\n" for line in kept))

    def note(self, **values: Any) -> None:
        """Keep values for the summary, however the run ends."""
        self._summary |= values

    def warn(self, text: str) -> None:
        """Keep a warning for the summary and for the end of the log, where one that was logged comes again."""
        line = " ".join(text.splitlines())
        if line not in self.warnings:
            self.warnings.append(line)

    def end(self, status: str, error: BaseException | None = None) -> None:
        """Write summary.json: a status, what was noted, the warnings, and the line of the error that ended the run.

        Raises:
            OSError: if the summary of a completed run cannot be written.
        """
        self.status = status
        if error is not None:
            log.debug("traceback", exc_info=error)
        if status == "failed" and self._is_before_resuming and (self.path / "summary.json").exists():
            return  # what was trained is as it was
        ended_by = None if error is None else one_line(error)
        values = {"status": status, **self._summary, "warnings": self.warnings, "error": ended_by}
        try:
            self.write("summary.json", json.dumps(_jsonable(values), indent=2) + "\n")
        except OSError as second:
            if status == "completed":
                raise
            log.warning("summary.json could not be written: %s", describe(second))

    def forget_summary(self) -> None:
        """Remove the summary of an attempt before this one, which goes on now."""
        self._is_before_resuming = False
        with suppress(OSError):  # where it cannot be removed, neither can it be written: that will be said then
            (self.path / "summary.json").unlink(missing_ok=True)

    # What a training can do without

    def record_command(self, command: str) -> None:
        """Add a line to command.txt, one for each time that the run was started or resumed."""

        def append() -> None:
            with (self.path / "command.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(" ".join(command.splitlines()) + "\n")

        if command:
            self.attempt(append, "command.txt")

    def picture(self, name: str, draw: Callable[[], Image.Image], step: int) -> None:
        """Write a picture as `name`.png and send it to the logger under the name of its folder."""

        def write() -> None:
            picture = draw()
            write_png(self.path / f"{name}.png", picture)
            if self._logger is not None:
                self._logger.picture(name.split("/")[0], picture, step)

        self.attempt(write, f"{name}.png")

    def attempt(self, act: Callable[[], object], what: str) -> None:
        """Do what a training can do without, and log a warning if it fails."""
        try:
            act()
            self.written.add(what)
        except Exception as error:
            self.warn(f"{what} could not be written, the training goes on: {error}")
            log.debug("traceback", exc_info=True)


class NullRunDirectory(RunDirectory):
    """The run directory in the processes that leave writing and speaking to rank 0: every method does nothing."""

    def __init__(self) -> None:
        self.path, self.warnings, self.written = Path(), [], set()

    def __enter__(self) -> NullRunDirectory:
        log.propagate = False
        log.addHandler(logging.NullHandler())
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_to(self, logger: Logger, config: dict[str, Any]) -> None: ...

    def write(self, name: str, text: str) -> None: ...

    def metrics(self, epoch: int, step: int, split: str, values: Mapping[str, Any]) -> None: ...

    def steps(self, records: list[StepRecord]) -> None: ...

    def cut_metrics(self, epoch: int, step: int) -> None: ...

    def note(self, **values: Any) -> None: ...

    def warn(self, text: str) -> None: ...

    def end(self, status: str, error: BaseException | None = None) -> None: ...

    def forget_summary(self) -> None: ...

    def record_command(self, command: str) -> None: ...

    def picture(self, name: str, draw: Callable[[], Image.Image], step: int) -> None: ...

    def attempt(self, act: Callable[[], object], what: str) -> None: ...


class _Collector(logging.Handler):
    """Keeps the texts of warnings, each once."""

    def __init__(self, texts: list[str]) -> None:
        super().__init__(logging.WARNING)
        self._texts = texts

    def emit(self, record: logging.LogRecord) -> None:
        if record.getMessage() not in self._texts:
            self._texts.append(record.getMessage())


class _Console(logging.Handler):
    """Prints log lines on standard output without tearing a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(_lines(record), file=sys.stdout)
            sys.stdout.flush()
        except OSError:  # the reader has gone, or has no room; the training and its log go on
            log.removeHandler(self)


def _lines(record: logging.LogRecord) -> str:
    """Return a record as it is printed: a warning with that label, a long text by words in lines below each other.

    A path stays on its line, to be copied.
    """
    message, is_warning = record.getMessage(), record.levelno >= logging.WARNING
    if is_warning:
        message = f"{'warning':<{LABEL}}{message}"
    label, text = message[:LABEL], message[LABEL:]
    has_path = isinstance(record.args, tuple) and any(isinstance(value, Path) for value in record.args)
    if re.fullmatch(r"[a-z]+ +", label) and not has_path:
        message = textwrap.fill(text, WIDTH, initial_indent=label, subsequent_indent=" " * LABEL, **_BY_WORDS)
    if is_warning and sys.stdout.isatty() and "NO_COLOR" not in os.environ:
        message = f"\033[1;33m{message}\033[0m"
    return message


class _LogFile(logging.FileHandler):
    """Writes log lines to train.log. A full disk costs the log its lines, not the training its life."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning("train.log could not be written, the training goes on: %s", sys.exc_info()[1])


def _scalars(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    for name, value in values.items():
        yield from (
            ((f"{name}/{i}", entry) for i, entry in enumerate(value)) if isinstance(value, list) else [(name, value)]
        )


def _jsonable(value: Any) -> Any:
    """Return a value with every number that is not finite as null, for which JSON has no other word."""
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
