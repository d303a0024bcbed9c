"""The jobs of a sweep: a directory for each, how each stands, and the tables of those that have ended."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from vae_cli.runs import reader
from vae_cli.runs.reader import JOB, Run, finite
from vae_cli.system.atomic import atomic_write
from vae_cli.system.locks import file_lock, is_locked

CSV, JSONL, LOCK = "sweep.csv", "sweep.jsonl", ".lock"
COLUMNS = ("job", "status", "overrides", "test_elbo", "seconds", "directory", "error")
STATUSES = (*reader.STATUSES, "pending")
ENDED = ("completed", "failed", "interrupted", "pruned")
LONGEST_NAME = 64
OF_A_START = ("begun_in", "ended_in", "pruned")  # what is kept of a job beside itself

# Settings of which the results do not depend: a job is the same with another value, unless that is what is swept.
BESIDE = (
    *("threads", "device", "data_dir", "checkpoint_every", "sample_every"),
    *("logger", "report", "allow"),
)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
_FAITHFUL = re.compile(r"[a-z][a-z0-9_.]*=[a-z0-9._-]*[a-z0-9]")


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        number: what it is called by; it stays the same when the sweep is started again.
        overrides: its settings, as Hydra reads them.
        path: its run directory.
        more: what else is known of it, such as the trial that it is.
    """

    number: int
    overrides: tuple[str, ...]
    path: Path
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def title(self) -> str:
        return f"job {self.number} ({self.shown})"

    @property
    def shown(self) -> str:
        """The settings in which it may differ from others."""
        swept = self.more.get("swept", ())
        return " ".join([text for text in self.overrides if key(text) in swept] or self.overrides)

    def write(self, **more: Any) -> None:
        """Keep the job, and what became known of it, in its directory."""
        known = {"job": self.number, "overrides": list(self.overrides)} | {**self.more, **more}
        write(self.path / JOB, json.dumps(known, indent=2) + "\n")


@dataclass(frozen=True)
class State:
    """How a job stands, as its directory tells.

    Args:
        path: its directory.
    """

    path: Path

    @cached_property
    def run(self) -> Run:
        return Run(self.path, self.path.name)

    @property
    def record(self) -> dict[str, Any]:
        return self.run.job

    @property
    def status(self) -> str:
        """`completed`, `failed`, `interrupted`, `pruned`; `running` while a process is at work on it; `unfinished`
        where one has died; `pending` before it was begun."""
        if is_locked(self.path / LOCK) and "ended_in" not in self.record:
            return "running"
        status = self.run.status
        begun = any((self.path / "checkpoints").glob("*.pt"))
        return "pending" if status == "unfinished" and not begun else status

    def begun_in(self, sweep: str) -> bool:
        """Whether it was begun, or taken up, in that start of the sweep."""
        return self.record.get("begun_in") == sweep

    def ended_in(self, sweep: str) -> bool:
        """Whether it ended in that start of the sweep."""
        return self.record.get("ended_in") == sweep

    def row(self) -> dict[str, Any]:
        """Its line of the tables."""
        return {
            "job": self.record.get("job"),
            "status": self.status,
            "overrides": " ".join(map(str, self.record.get("overrides", []))),
            "test_elbo": self.run.number("elbo"),
            "seconds": self.run.number("seconds"),
            "directory": str(self.path.absolute()),
            "error": self.run.error,
        }


def read_job(path: Path) -> Job | None:
    """The job that a directory was made for."""
    record = Run(path, path.name).job
    number, overrides = record.get("job"), record.get("overrides")
    if not isinstance(number, int) or not isinstance(overrides, list):
        return None
    more = {key: value for key, value in record.items() if key not in ("job", "overrides", *OF_A_START)}
    return Job(number, tuple(map(str, overrides)), path, more)


def of_sweep(sweep: Path) -> list[Job]:
    """All jobs that a sweep's directory holds, by number."""
    folders = (path.parent for path in sweep.glob(f"*/{JOB}"))
    found = (read_job(path) for path in folders if _NAME.fullmatch(path.name) and not path.is_symlink())
    return sorted((job for job in found if job is not None), key=lambda job: job.number)


def assign(sweep: Path, wanted: Iterable[Sequence[str]], swept: Collection[str]) -> list[Job]:
    """A directory for each list of overrides: the one that it has had before, or a new one, in the order given.

    Args:
        sweep: the sweep's directory.
        wanted: the overrides of each job.
        swept: the keys that take several values.
    """
    jobs: dict[frozenset[str], Job] = {}
    with locked(sweep):
        there = of_sweep(sweep)
        known = {_identity(job.overrides, job.more.get("swept", ())): job for job in there}
        number = max((job.number for job in there), default=-1)
        for overrides in wanted:
            identity = _identity(overrides, swept)
            if identity in jobs:
                continue
            job = known.get(identity)
            if job is None:
                number += 1
                job = Job(number, (), sweep / _free_name(sweep, overrides, swept, identity))
            jobs[identity] = _kept(job.path, job.number, overrides, swept)
    return list(jobs.values())


def of_trial(path: Path, number: int, overrides: Sequence[str], swept: Collection[str], **more: Any) -> Job:
    """The job of a search's trial, with what else to keep of it."""
    with locked(path.parent):
        return _kept(path, number, overrides, swept, **more)


def _kept(path: Path, number: int, overrides: Sequence[str], swept: Collection[str], **more: Any) -> Job:
    """A job, written into its directory beside what is known there of how it went."""
    job = Job(number, tuple(overrides), path, {"swept": sorted(swept), **more})
    path.mkdir(parents=True, exist_ok=True)
    job.write(**{key: value for key, value in State(path).record.items() if key in OF_A_START})
    return job


def _identity(overrides: Sequence[str], swept: Collection[str]) -> frozenset[str]:
    """What makes a job this one and no other."""
    last = {key(text): text for text in overrides}
    return frozenset(text for name, text in last.items() if name in swept or matters(name))


def matters(name: str) -> bool:
    """Whether the results depend on a dotted key."""
    return name.partition(".")[0] not in BESIDE


def key(override: str) -> str:
    """The key that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def _free_name(sweep: Path, overrides: Sequence[str], swept: Collection[str], identity: frozenset[str]) -> str:
    """A directory's name that no other job has: letters, digits, `.`, `-` and `_` alone, and short."""
    shown = [text for text in overrides if key(text) in swept] or list(overrides) or ["job=default"]
    parts = [re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") for text in shown]
    whole = "__".join(parts)
    faithful = all(_FAITHFUL.fullmatch(text) and "__" not in text for text in shown) and len(whole) <= LONGEST_NAME
    if faithful and _is_free(sweep / whole):
        return whole
    digest = hashlib.sha256("\n".join(sorted(identity)).encode()).hexdigest()
    name = f"{whole[: LONGEST_NAME - 9].rstrip('-._')}-{digest[:8]}"
    return name if _is_free(sweep / name) else f"{whole[: LONGEST_NAME - 33].rstrip('-._')}-{digest[:32]}"


def _is_free(path: Path) -> bool:
    """Whether there is nothing, or only the empty folder of a start that was killed at once."""
    return not path.exists() or (path.is_dir() and not any(path.iterdir()))


def fail(path: Path, why: str) -> None:
    """Write the summary of a job that failed before it could write its own."""
    note(path, "failed", why)


def note(path: Path, status: str, error: str | None = None) -> None:
    """Write the summary of a job that has not written its own."""
    write(path / "summary.json", json.dumps({"status": status, "error": error}, indent=2) + "\n")


def write_tables(sweep: Path) -> None:
    """Write sweep.csv and sweep.jsonl anew, of all jobs that have ended; each is replaced as a whole."""
    with locked(sweep):
        for left in sweep.glob(".sweep.*.tmp"):  # by whoever was killed while writing
            left.unlink(missing_ok=True)
        states = [State(job.path) for job in of_sweep(sweep)]
        rows = [state.row() for state in states if state.status in ENDED]
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write(sweep / CSV, text.getvalue())
        write(sweep / JSONL, "".join(json.dumps(row) + "\n" for row in rows))


def table(rows: Sequence[Mapping[str, Any]], numbers: Sequence[str] = (), width: int | None = None) -> str:
    """The rows in aligned lines, each failure's reason below its row.

    Args:
        rows: as `State.row` gives them.
        numbers: the names of further numbers in the rows.
        width: of the terminal, which no line is to exceed.
    """
    named = ("test_elbo", *numbers, "seconds")
    shown = [("job", "status", *(name.replace("_", " ") for name in named), "directory", "settings")]
    for row in rows:
        cells = ["" if finite(row[name]) is None else shown_number(row[name]) for name in named]
        shown.append((str(row["job"]), row["status"], *cells, Path(row["directory"]).name, _rounded(row["overrides"])))
    widths = [max(map(len, column)) for column in zip(*shown)]
    lines = []
    for line, row in zip(shown, [{}, *rows]):
        right = {0, *range(2, 2 + len(named))}
        cells = [text.rjust(w) if n in right else text.ljust(w) for n, (text, w) in enumerate(zip(line, widths))]
        lines.append(_cut("  ".join(cells).rstrip(), width))
        if row.get("error"):
            lines += _below(row["error"], widths[0], width)
    return "\n".join(lines)


def shown_number(value: float) -> str:
    """A number to two digits after the point; a whole one as such."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,.2f}"


def _cut(line: str, width: int | None) -> str:
    return line if width is None or len(line) <= width else f"{line[: width - 1]}…"


def _below(text: str, indent: int, width: int | None) -> list[str]:
    """A text under a row of the table."""
    first, later = f"{' ' * indent}  └ ", " " * (indent + 4)
    if width is None:
        return [first + text]
    return textwrap.wrap(text, max(width, 40), initial_indent=first, subsequent_indent=later)


def _rounded(settings: str) -> str:
    """Settings whose numbers of many digits are shown with a few."""
    return re.sub(r"(?<==)-?\d+\.\d{5,}(e-?\d+)?(?= |$)", lambda match: f"{float(match[0]):.4g}", settings)


def write(path: Path, text: str) -> None:
    """Replace a small text file as a whole."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


@contextmanager
def locked(sweep: Path) -> Iterator[None]:
    """One process at a time, on systems and disks that have locks."""
    with file_lock(sweep / LOCK, wait=True):
        yield


def waiting(jobs: Sequence[Job], sweep: str, retry_failed: bool) -> list[Job]:
    """The jobs that are to be run: not completed, not at work, and not ended in this start of the sweep already; those
    that failed before only if that is wanted."""
    leave = {"completed", "running", "pruned"} | (set() if retry_failed else {"failed"})
    states: list[tuple[Job, State]] = [(job, State(job.path)) for job in jobs]
    return [job for job, state in states if state.status not in leave and not state.ended_in(sweep)]
