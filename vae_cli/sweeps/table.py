"""A sweep's tables: sweep.csv and sweep.jsonl of the jobs that have ended, and the terminal's of all.

A new column is one line in `COLUMNS`.
"""

from __future__ import annotations

import csv
import io
import json
import re
import sys
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_cli.errors import describe
from vae_cli.sweeps.job import ENDED, Job, read_jobs
from vae_cli.system.atomic import write_text
from vae_cli.system.locks import file_lock

CSV, JSONL = "sweep.csv", "sweep.jsonl"


@dataclass(frozen=True)
class Column:
    """One column of the tables.

    Args:
        name: its name in the files; the terminal shows it without underscores.
        value: a job's value in it: a text, a number, or None.
        text: a job's text on the terminal; None shows the value, a number with two digits after the point.
        title: its name on the terminal, if that is another.
    """

    name: str
    value: Callable[[Job], Any]
    text: Callable[[Job], str] | None = None
    title: str | None = None


COLUMNS = (
    Column("job", lambda job: job.number),
    Column("status", lambda job: job.status),
    Column("overrides", lambda job: " ".join(job.overrides), lambda job: _rounded(job.settings), "settings"),
    Column("test_elbo", lambda job: job.run.number("elbo")),
    Column("seconds", lambda job: job.run.number("seconds")),
    Column("directory", lambda job: str(job.path.absolute()), lambda job: job.path.name),
    Column("error", lambda job: job.run.error),
)
LAST = ("directory", "overrides")  # on the terminal, where they may be cut
BELOW = "error"  # on the terminal a line of its own


def write_tables(sweep: Path) -> None:
    """Replace sweep.csv and sweep.jsonl by those of all jobs that have ended so far.

    A disk without room costs the sweep a table, which the next job makes up for, and not its life.
    """
    try:
        with file_lock(sweep / ".table.lock", wait=True):  # jobs beside each other write one after the other
            jobs = [job for job in read_jobs(sweep) if job.status in ENDED]
            rows = [{column.name: column.value(job) for column in COLUMNS} for job in jobs]
            text = io.StringIO()
            writer = csv.DictWriter(text, [column.name for column in COLUMNS], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
            write_text(sweep / CSV, text.getvalue())
            write_text(sweep / JSONL, "".join(json.dumps(row) + "\n" for row in rows))
    except OSError as error:
        print(f"{error.filename} cannot be written ({describe(error)}); the sweep goes on", file=sys.stderr, flush=True)


def terminal_table(jobs: Sequence[Job], more: Sequence[Column] = (), width: int | None = None) -> str:
    """Return the jobs in aligned lines, each failure's reason below its line.

    Args:
        jobs: the jobs.
        more: further columns of numbers.
        width: of the terminal, to which lines are cut.
    """
    by_name = {column.name: column for column in COLUMNS}
    numbers = [column for column in COLUMNS if column.name not in (*LAST, BELOW)]
    columns = [*numbers, *more, *(by_name[name] for name in LAST)]
    values = [[column.text(job) if column.text else column.value(job) for column in columns] for job in jobs]
    titles = [column.title or column.name.replace("_", " ") for column in columns]
    texts = [titles, *([with_two_decimals(value) for value in row] for row in values)]
    widths = [max(map(len, column)) for column in zip(*texts)]
    is_number = [all(not isinstance(row[n], str) for row in values) for n in range(len(columns))]
    lines = []
    for job, row in zip([None, *jobs], texts):
        cells = [text.rjust(w) if right else text.ljust(w) for text, w, right in zip(row, widths, is_number)]
        line = "  ".join(cells).rstrip()
        lines.append(line if width is None or len(line) <= width else f"{line[: width - 1]}…")
        if job is not None and job.run.error:
            first, later = f"{' ' * widths[0]}  └ ", " " * (widths[0] + 4)
            longest = max(width, 40) if width is not None else len(first + job.run.error)
            lines += textwrap.wrap(job.run.error, longest, initial_indent=first, subsequent_indent=later)
    return "\n".join(lines)


def with_two_decimals(value: Any) -> str:
    """Return a number with two digits after the point, an integer as it is, None as nothing, and a text unchanged."""
    if isinstance(value, float):
        return f"{value:,.2f}"
    return "" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def _rounded(settings: str) -> str:
    """Return settings with their numbers of many digits shortened."""
    return re.sub(r"(?<==)-?\d+\.\d{5,}(e-?\d+)?(?= |$)", lambda match: f"{float(match[0]):.4g}", settings)
