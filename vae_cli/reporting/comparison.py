"""Runs side by side: a row for each, the best first, as a CSV file and as lines for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vae_cli.build import options
from vae_cli.constraints import show
from vae_cli.errors import printable
from vae_cli.reporting.page import format_number
from vae_cli.runs.reader import (
    DISENTANGLEMENT_METRICS,
    EVALUATION_METRICS,
    GENERATION_METRICS,
    METRICS,
    TEST_METRICS,
    Run,
    differing,
    finite,
    mapping,
    ranked,
)

NO_SETTINGS = frozenset({"run", "status", "error", "epochs", "evaluated", "warnings", *METRICS})  # columns of results
SAME_MODEL = ("data_dir", "dataset.path", "dataset.cache", "resume", "report")  # settings that change no model
OTHER_NATS = ("dataset", "dataset.binarize", "dataset.image_size", "likelihood")  # that change what a nat is of
WIDEST = (40, 32, 24, 16)  # characters of a cell on the terminal; those of an error, as many as there is room for

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
        """The columns that say something: the metric before the settings, errors last.

        Of several runs that all have one value in a column, it says nothing.
        """
        names = list(dict.fromkeys([*self._leading, *self.rows[0]]))
        if self.metric != "bound" and all(row["bound"] == row["elbo"] for row in self.rows):
            names.remove("bound")
        if "epochs (set)" in names and all(row["epochs (set)"] == row["epochs"] for row in self.rows):
            names.remove("epochs")  # all were trained as long as they were to be
        return [name for name in names if self._says_something(name)]

    @property
    def _leading(self) -> list[str]:
        return ["run", "status", self.metric, *map(setting_column, self.settings)]

    def _says_something(self, column: str) -> bool:
        values = [row[column] for row in self.rows]
        if column == "status":
            return any(value != "completed" for value in values)
        if column == "warnings":
            return any(values)
        is_filled = any(value not in (None, "") for value in values)
        is_constant = len(values) > 1 and all(value == values[0] for value in values)
        return is_filled and (not is_constant or column in ("run", self.metric, "error"))

    @property
    def warning(self) -> str:
        """The reason why the runs' numbers do not compare; empty if they do."""
        keys = [key for key in self.settings if key in OTHER_NATS]
        data = [mapping(run.summary.get("data")) for run in self.runs]
        facts = {str([each.get(key) for key in ("shape", "train", "digest")]) for each in data if each}
        of_nats = f"the runs differ in {' and '.join(keys)}: their nats do not compare" if keys else ""
        if not keys and len(facts) > 1:
            of_nats = "the runs are of different data: their nats do not compare"
        return "; ".join(filter(None, [of_nats, self._generation_warning, self._factor_warning]))

    @property
    def _factor_warning(self) -> str:
        """The reason why the runs' disentanglement scores, which sort them, do not compare; empty if they do."""
        variants = {_variant(run, self.metric) for run in self.runs} - {""}
        if self.metric not in DISENTANGLEMENT_METRICS or len(variants) < 2:
            return ""
        return "the runs have disentanglement scores of unlike variants, which do not compare: see evaluation.json"

    @property
    def _generation_warning(self) -> str:
        """The reason why the runs' distances of samples do not compare; empty if they do."""
        scores = [scores for run in self.runs if (scores := mapping(run.evaluation.get("generation")))]
        differ = {
            "in other features": {str(mapping(each.get("features")).get("digest")) for each in scores},
            "of another number": {str(each.get("n")) for each in scores},
            "with another draw=": {str(each.get("drawn")) for each in scores},
        }
        reasons = [reason for reason, values in differ.items() if len(values) > 1]
        return f"some samples were scored {' and '.join(reasons)}: their distances do not compare" if reasons else ""

    def is_numeric(self, column: str) -> bool:
        return all(row[column] is None or finite(row[column]) is not None for row in self.rows)

    def label(self, run: Run) -> str:
        """Return a run's name with its settings where these are short; only these if its directory is named by them."""
        values = named_settings(run)
        settings = " ".join(f"{key}={show(values[key])}" for key in self.settings if key in values)
        if run.name == settings.replace("=", "-").replace(" ", "__"):
            return settings
        return f"{run.name}: {settings}" if settings and len(settings) <= WIDEST[0] else run.name

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
            width: of the terminal, for which the last results, then the last settings are left out, a line says how
                many, and long errors are cut off.
        """
        columns, kept = self.columns, ("run", "status", self.metric, "warnings", "error")
        settings = [name for name in self._leading if name in columns and name not in kept]
        further = settings + [name for name in columns if name not in (*settings, *kept)]
        least = len(settings) > 0  # one setting stays
        texts = self._texts(columns, WIDEST[0])
        while width and _width(texts) > width and len(further) > least:
            del texts[further.pop()]
        for widest in WIDEST[1:]:
            if width and _width(texts) > width:
                texts = self._texts(list(texts), widest)
        columns = list(texts)
        widths = {name: max(map(len, cells)) for name, cells in texts.items()}
        aligned = [
            [cell.rjust(widths[name]) if self.is_numeric(name) else cell.ljust(widths[name]) for cell in texts[name]]
            for name in columns
        ]
        left_out = [name for name in settings if name not in texts]
        note = (
            [f"({len(left_out)} of {len(settings)} settings have no room in {width} columns; the files have all)"]
            if left_out
            else []
        )
        return "\n".join([*("  ".join(line).rstrip() for line in zip(*aligned)), *note])

    def _texts(self, columns: Sequence[str], widest: int) -> dict[str, list[str]]:
        return {
            name: [
                _short(text, widest if name == "error" else WIDEST[0])
                for text in (name, *(cell_text(name, row[name]) for row in self.rows))
            ]
            for name in columns
        }


def _variant(run: Run, metric: str) -> str:
    """Return the variant that a run's disentanglement scores are of, as a text; empty without any."""
    variant = mapping(mapping(run.evaluation.get("disentanglement")).get("variant"))
    return str({key: text for key, text in variant.items() if key != "udr" or metric == key}) if variant else ""


def _width(texts: Mapping[str, Sequence[str]]) -> int:
    return sum(max(map(len, cells)) + 2 for cells in texts.values()) - 2


def named_settings(run: Run) -> dict[str, Any]:
    """Return a run's settings under dotted keys, with the names of the options of groups, as one types them."""
    nodes = {group: mapping(run.settings.get(group)) for group in options.groups("train")}
    chosen = {group: options.choice(group, node) for group, node in nodes.items() if "_target_" in node}
    return run.flat_settings() | chosen


def _row(run: Run, settings: Sequence[str]) -> Row:
    values = named_settings(run)
    images, draws = run.evaluated_examples, run.evaluation.get("num_importance_samples")
    row: Row = {"run": run.name, "status": run.status, "epochs": run.epochs}
    metrics = (*TEST_METRICS, "validation_elbo", *EVALUATION_METRICS, *GENERATION_METRICS)
    row |= {metric: run.number(metric) for metric in metrics}
    for key in settings:
        value = values.get(key)
        row[setting_column(key)] = show(value) if isinstance(value, list) else value
    evaluated = "" if images is None else f"{format_number(images)} {run.noun}s, K = {format_number(draws)}"
    numbers = {metric: run.number(metric) for metric in ("parameters", "seconds")}
    return row | {"evaluated": evaluated, **numbers, "warnings": len(run.warnings), "error": run.error}


def setting_column(key: str) -> str:
    """Return the name of a setting's column, which is never that of a result."""
    return f"{key} (set)" if key in NO_SETTINGS else key


def cell_text(column: str, value: Any) -> str:
    """Return a result with a few digits, or a setting as it was given."""
    return format_number(value) if value is None or column in NO_SETTINGS else show(value)


def _short(text: str, widest: int) -> str:
    text = printable(text)
    return text if len(text) <= widest else text[: widest - 1] + "…"
