"""Runs side by side: a row for each, the best first, as a CSV file and as lines for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vae_cli.constraints import show
from vae_cli.errors import printable
from vae_cli.reporting.page import format_number
from vae_cli.runs.reader import EVALUATION_METRICS, METRICS, TEST_METRICS, Run, differing, finite, ranked

NO_SETTINGS = frozenset({"run", "status", "error", "epochs", "evaluated", *METRICS})  # columns of results
SAME_MODEL = ("data_dir", "dataset.path", "dataset.cache", "resume", "report")  # settings that change no model
OTHER_NATS = ("dataset", "dataset.binarize", "dataset.image_size", "likelihood")  # that change what a nat is of
WIDEST = 40  # characters of a cell on the terminal

Row = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Runs in rows, the best first.

    Args:
        runs: in the order of the rows.
        metric: by which they are sorted.
        settings: the dotted keys in which they differ.
        rows: of each run, the values by the names of the columns.
    """

    runs: list[Run]
    metric: str
    settings: list[str]
    rows: list[Row]

    @classmethod
    def of(cls, runs: Sequence[Run], metric: str) -> Comparison:
        """Return the comparison of runs by a metric."""
        runs = ranked(runs, metric)
        settings = [key for key in differing(runs) if key not in SAME_MODEL]
        return cls(runs, metric, settings, [_row(run, settings) for run in runs])

    @property
    def columns(self) -> list[str]:
        """The columns that are not empty: the metric before the settings, errors last."""
        names = list(dict.fromkeys(["run", "status", self.metric, *map(setting_column, self.settings), *self.rows[0]]))
        if self.metric != "bound" and all(row["bound"] == row["elbo"] for row in self.rows):
            names.remove("bound")
        return [name for name in names if any(row[name] not in (None, "") for row in self.rows)]

    @property
    def warning(self) -> str:
        """The reason why the runs' numbers do not compare; empty if they do."""
        keys = [key for key in self.settings if key in OTHER_NATS]
        return f"the runs differ in {' and '.join(keys)}: their nats do not compare" if keys else ""

    def is_numeric(self, column: str) -> bool:
        return all(row[column] is None or finite(row[column]) is not None for row in self.rows)

    def label(self, run: Run) -> str:
        """Return a run's name with its settings where these are short; only these if its directory is named by them."""
        values = run.flat_settings()
        settings = " ".join(f"{key}={show(values[key])}" for key in self.settings if key in values)
        if run.name == settings.replace("=", "-").replace(" ", "__"):
            return settings
        return f"{run.name}: {settings}" if settings and len(settings) <= WIDEST else run.name

    def as_csv(self) -> str:
        """Return all rows and columns as CSV in full precision."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0]), lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            # A quote keeps spreadsheets from taking a text for a formula.
            is_formula = {name: isinstance(v, str) and v.startswith(("=", "+", "@", "\t")) for name, v in row.items()}
            writer.writerow({name: f"'{value}" if is_formula[name] else value for name, value in row.items()})
        return text.getvalue()

    def as_text(self, width: int | None = None) -> str:
        """Return the rows in aligned lines.

        Args:
            width: of the terminal, for which the last columns are left out, but for the settings and the errors.
        """
        texts = {
            name: [_short(name), *(_short(cell_text(name, row[name])) for row in self.rows)] for name in self.columns
        }
        widths = {name: max(map(len, cells)) for name, cells in texts.items()}
        columns, has_errors = self.columns, "error" in self.columns
        fewest = 3 + len(self.settings) + has_errors
        while width and sum(widths[name] + 2 for name in columns) - 2 > width and len(columns) > fewest:
            columns.pop(-2 if has_errors else -1)
        aligned = [
            [cell.rjust(widths[name]) if self.is_numeric(name) else cell.ljust(widths[name]) for cell in texts[name]]
            for name in columns
        ]
        return "\n".join("  ".join(line).rstrip() for line in zip(*aligned))


def _row(run: Run, settings: Sequence[str]) -> Row:
    values = run.flat_settings()
    images, draws = run.evaluated_images, run.evaluation.get("num_importance_samples")
    row: Row = {"run": run.name, "status": run.status, "epochs": run.epochs}
    row |= {metric: run.number(metric) for metric in (*TEST_METRICS, "validation_elbo", *EVALUATION_METRICS)}
    for key in settings:
        value = values.get(key)
        row[setting_column(key)] = show(value) if isinstance(value, list) else value
    evaluated = "" if images is None else f"{format_number(images)} images, K = {format_number(draws)}"
    numbers = {metric: run.number(metric) for metric in ("parameters", "seconds")}
    return row | {"evaluated": evaluated, **numbers, "error": run.error}


def setting_column(key: str) -> str:
    """Return the name of a setting's column, which is never that of a result."""
    return f"{key} (set)" if key in NO_SETTINGS else key


def cell_text(column: str, value: Any) -> str:
    """Return a result with a few digits, or a setting as it was given."""
    return format_number(value) if value is None or column in NO_SETTINGS else show(value)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"
