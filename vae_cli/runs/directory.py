"""The files a run leaves, and what it says on the terminal."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

from PIL import Image
from tqdm import tqdm

from vae_cli.errors import Busy
from vae_cli.runs import listeners
from vae_cli.runs.reader import LOCK
from vae_cli.system.atomic import atomic_write
from vae_cli.system.locks import file_lock

log = logging.getLogger("vae_cli")


class Logger(Protocol):
    """Where a run's numbers and pictures go besides its directory; `vae_cli.loggers` has them."""

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None: ...

    def metrics(self, split: str, values: Mapping[str, Any], step: int, epoch: int) -> None: ...

    def picture(self, name: str, picture: Image.Image, step: int) -> None: ...

    def finish(self, status: str, test: Mapping[str, Any] | None) -> None: ...


class _Console(logging.Handler):
    """Lines on standard output that do not tear a progress bar."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            tqdm.write(record.getMessage(), file=sys.stdout)
            sys.stdout.flush()
        except OSError:  # whoever read along has gone, or has no room; the training and its log go on
            log.removeHandler(self)


class _LogFile(logging.FileHandler):
    """Lines in train.log; a disk without room costs the log its lines, not the training its life."""

    def handleError(self, record: logging.LogRecord) -> None:
        log.removeHandler(self)
        log.warning("train.log could not be written, the training goes on: %s", sys.exc_info()[1])


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Let an error of the system name the file."""
    try:
        yield
    except OSError as error:
        error.filename, error.filename2 = str(path), None
        raise


class RunDirectory:
    """One run's directory: log, metrics, pictures, curves and summary; checkpoints go where `checkpoint` says.

    Args:
        path: the directory, made if need be.
        resumed_at: the step at which an earlier training in it is taken up.

    Pictures, curves and the log that cannot be written are reported and never end a training; a line of metrics, a
    checkpoint or the summary that cannot raises an OSError with the file's name.
    """

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        self.path = path.absolute()
        self._resumed_at = resumed_at
        (self.path / "checkpoints").mkdir(parents=True, exist_ok=True)
        self._logger: Logger | None = None
        self._status = "failed"
        self._lock_file = file_lock(self.path / LOCK)
        self._handlers: list[logging.Handler] = []
        self._known: dict[str, Any] = dict.fromkeys(("epochs", "best_epoch", "validation", "test"))

    def __enter__(self) -> RunDirectory:
        self._lock()
        for left in self.path.glob("checkpoints/.*.tmp"):  # by whoever was killed while writing
            left.unlink(missing_ok=True)
        log.setLevel(logging.DEBUG)
        log.propagate = False
        self._listen(_Console(logging.INFO))
        self.attempt(self._open_log, "train.log")
        return self

    def _lock(self) -> None:
        """One training at a time, where the system can see to it.

        Raises:
            UserError: if another process is at work here.
        """
        if not self._lock_file.__enter__():
            raise Busy(f"{self.path} is being trained by another process; let it end first")

    def _open_log(self) -> None:
        to_file = _LogFile(self.path / "train.log", encoding="utf-8")
        to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        self._listen(to_file)

    def _listen(self, handler: logging.Handler) -> None:
        self._handlers.append(handler)
        log.addHandler(handler)

    def __exit__(self, *_: object) -> None:
        if self._logger is not None:
            self._logger.finish(self._status, self._known["test"])
        for handler in self._handlers:
            log.removeHandler(handler)
            with suppress(OSError):  # what the disk had no room for
                handler.close()
        self._lock_file.__exit__(None, None, None)

    def log_to(self, logger: Logger, settings: dict[str, Any]) -> None:
        """Send numbers and pictures to a logger too, whose failures are its own to report.

        Raises:
            ConfigError: if it cannot be used.
        """
        logger.start(self.path, settings, self._resumed_at)
        self._logger = logger

    def checkpoint(self, name: str) -> Path:
        return self.path / "checkpoints" / f"{name}.pt"

    def write(self, name: str, text: str) -> None:
        """Replace a small text file as a whole."""
        temporary = self.path / f".{name}.tmp"
        with _naming(self.path / name):
            try:
                temporary.write_text(text, encoding="utf-8")
                temporary.replace(self.path / name)
            finally:
                with suppress(OSError):
                    temporary.unlink(missing_ok=True)

    def metrics(self, epoch: int, step: int, split: str, values: Mapping[str, float]) -> None:
        """Append a line to metrics.jsonl and a point to the logger's curves."""
        record = {"epoch": epoch, "step": step, "split": split, **_jsonable(values)}
        path = self.path / "metrics.jsonl"
        with _naming(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint must not outlive what belongs to it
        if self._logger is not None:
            self._logger.metrics(split, values, step, epoch)
        listeners.tell(epoch, split, values)

    def cut_metrics(self, epoch: int, step: int) -> None:
        """Drop from metrics.jsonl what a resumed training will write again, and any line cut short."""
        path = self.path / "metrics.jsonl"
        kept = []
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
            try:
                record = json.loads(line)
                if record["epoch"] <= epoch and record["step"] <= step and record["split"] != "test":
                    kept.append(line)
            except (ValueError, TypeError, KeyError):  # cut short, or nobody's
                continue
        self.write("metrics.jsonl", "".join(f"{line}\n" for line in kept))

    def picture(self, name: str, draw: Callable[[], Image.Image], step: int) -> None:
        """Write a picture as `name`.png and send it to the logger under the name of its folder."""

        def write() -> None:
            picture = draw()
            with atomic_write(self.path / f"{name}.png") as temporary:
                picture.save(temporary, format="PNG")
            if self._logger is not None:
                self._logger.picture(name.split("/")[0], picture, step)

        self.attempt(write, f"{name}.png")

    def note(self, **values: Any) -> None:
        """Keep what the summary will say, however the run ends."""
        self._known |= values

    def summary(self, status: str, error: str | None = None) -> None:
        """Write summary.json: `completed`, `interrupted` or `failed`, and what was noted until then."""
        self._status = status
        values = {"status": status, **self._known, "error": error}
        self.write("summary.json", json.dumps(_jsonable(values), indent=2) + "\n")

    def forget_summary(self) -> None:
        """Take away the summary of an attempt that did not come to train, so that it is not taken for this run's."""
        with suppress(OSError):  # where it cannot be removed, neither can it be written: that will be said then
            (self.path / "summary.json").unlink(missing_ok=True)

    def typed(self, command: str) -> None:
        """Add a command to command.txt, one for each time that the run was started or taken up."""

        def add() -> None:
            with (self.path / "command.txt").open("a", encoding="utf-8") as file:
                file.write(" ".join(command.splitlines()) + "\n")

        if command:
            self.attempt(add, "command.txt")

    def attempt(self, act: Callable[[], object], what: str) -> None:
        """Do what a training can do without; say so if it fails."""
        try:
            act()
        except Exception as error:
            log.warning("%s could not be written, the training goes on: %s", what, error)
            log.debug("traceback", exc_info=True)


class Elsewhere(RunDirectory):
    """A run directory as the processes see it that leave writing and speaking to the first."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> Elsewhere:
        log.propagate = False
        log.addHandler(logging.NullHandler())
        return self

    def __exit__(self, *_: object) -> None: ...

    def log_to(self, logger: Logger, settings: dict[str, Any]) -> None: ...

    def write(self, name: str, text: str) -> None: ...

    def metrics(self, epoch: int, step: int, split: str, values: Mapping[str, float]) -> None: ...

    def cut_metrics(self, epoch: int, step: int) -> None: ...

    def picture(self, name: str, draw: Callable[[], Image.Image], step: int) -> None: ...

    def note(self, **values: Any) -> None: ...

    def summary(self, status: str, error: str | None = None) -> None: ...

    def forget_summary(self) -> None: ...

    def typed(self, command: str) -> None: ...

    def attempt(self, act: Callable[[], object], what: str) -> None: ...


def _jsonable(value: Any) -> Any:
    """JSON has no numbers that are not finite: they become null."""
    if isinstance(value, Mapping):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


class Progress:
    """A bar over the whole training on a terminal; nothing elsewhere, where a line per epoch is printed instead."""

    FORMAT = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed} gone, {remaining} to go{postfix}"

    def __init__(self, total: int, done: int, hidden: bool = False) -> None:
        hidden = hidden or not sys.stderr.isatty() or bool(os.environ.get("CI"))
        unknown_width = not hidden and os.get_terminal_size(sys.stderr.fileno()).columns == 0
        self._bar = tqdm(
            desc="training",
            total=total,
            initial=done,
            disable=hidden,
            bar_format=self.FORMAT,
            ncols=100 if unknown_width else None,
            dynamic_ncols=not unknown_width,
            leave=False,
        )
        self._hidden, self._shown = hidden, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether half a second has passed since numbers were last shown."""
        return not self._hidden and time.monotonic() - self._shown > 0.5

    def advance(self) -> None:
        self._bar.update()

    def show(self, title: str, numbers: str) -> None:
        self._bar.set_description_str(title, refresh=False)
        self._bar.set_postfix_str(numbers)
        self._shown = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()
