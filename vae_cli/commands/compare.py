"""`vae-compare`: many runs side by side, as a table, a CSV file and a page."""

from __future__ import annotations

import csv
import io
import math
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from vae_cli.constraints import check_value, show
from vae_cli.errors import UserError, printable
from vae_cli.reporting import page
from vae_cli.reporting.page import Spec
from vae_cli.runs.reader import (
    EVALUATED,
    LOWER_IS_BETTER,
    METRICS,
    STATUSES,
    TEST,
    Run,
    differing,
    find,
    finite,
    ranked,
)
from vae_cli.system.atomic import atomic_write

CSV, PAGE = "comparison.csv", "comparison.html"
MOST_PICTURES = 60
MOST_AXES = 8
MOST_CURVES = 60
MOST_POINTS = 4000  # of all curves together
MOST_LINES = 300  # through the parallel axes: the best ones
PLACES = ("data_dir", "dataset.path", "dataset.cache", "resume", "report")  # that make no other model
RESULTS = frozenset({"run", "status", "error", "epochs", "evaluated", *METRICS})  # the columns that are no settings
CLOSEST = 0.05  # of an axis between two texts beside it
WIDEST = 40  # characters of a cell on the terminal

Row = dict[str, Any]


def run(places: Sequence[str], settings: dict[str, Any]) -> None:
    """Print a table of runs and write comparison.csv and comparison.html.

    Args:
        places: run directories, sweep directories or patterns.
        settings: the plain config of `vae-compare`.

    Raises:
        UserError: if there are no runs, none has the metric, or an output cannot be written.
    """
    check_value("metric", settings["metric"], Literal[METRICS])
    folder, found = Path(settings["output"]).expanduser(), find(places)
    metric = _metric(found, settings["metric"])
    runs = ranked(found, metric)
    keys = varied(runs)
    rows = [_row(one, keys) for one in runs]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    print(terminal_table(rows, _columns(rows, keys, metric), width, 3 + len(keys)))
    _write(folder / CSV, as_csv(rows))
    _write(folder / PAGE, render(runs, rows, keys, metric))
    if mixed := _mixed(keys):
        print(f"note: {mixed}")
    print(f"written to {folder / CSV} and {folder / PAGE}")


def _metric(runs: Sequence[Run], metric: str) -> str:
    """What to sort by: what was asked for, or as long as no run is completed the validation's ELBO.

    Raises:
        UserError: if no run has it.
    """
    if any(run.number(metric) is not None for run in runs):
        return metric
    if metric == "elbo":
        print("note: no run is completed yet: sorted by validation_elbo")
        return "validation_elbo"
    raise UserError(f"metric={metric}: none of the {len(runs)} run(s) has it{_where_from(metric)}")


def _where_from(metric: str) -> str:
    if metric in EVALUATED:
        return "; run vae-evaluate checkpoint=DIR for each first"
    return "; a run has it once it is completed (or choose metric=validation_elbo)"


def varied(runs: Sequence[Run]) -> list[str]:
    """The settings that differ between the runs and may make another model."""
    return [key for key in differing(runs) if key not in PLACES]


def _row(run: Run, keys: Iterable[str]) -> Row:
    """A run's cells by the names of their columns."""
    flat = run.flat_settings()
    numbers = {metric: run.number(metric) for metric in (*TEST, "validation_elbo", *EVALUATED)}
    own = {_column(key): show(value) if isinstance(value := flat.get(key), list) else value for key in keys}
    return {
        "run": run.name,
        "status": run.status,
        "epochs": run.epochs,
        **numbers,
        **own,
        "evaluated": _evaluated(run),
        "parameters": run.number("parameters"),
        "seconds": run.number("seconds"),
        "error": run.error,
    }


def _evaluated(run: Run) -> str:
    """On what vae-evaluate's numbers stand."""
    images, draws = run.evaluated_images, run.evaluation.get("num_importance_samples")
    return "" if images is None else f"{page.number(images)} images, K = {page.number(draws)}"


def _column(key: str) -> str:
    """A setting's column, which takes the place of no result's."""
    return f"{key} (set)" if key in RESULTS else key


def _columns(rows: Sequence[Row], keys: Sequence[str], metric: str) -> list[str]:
    """The columns in which there is something, the metric first."""
    names = list(dict.fromkeys(["run", "status", metric, *map(_column, keys), *rows[0]]))
    if metric != "bound" and all(row["bound"] == row["elbo"] for row in rows):
        names.remove("bound")
    filled = [name for name in names if any(row[name] not in (None, "") for row in rows)]
    return [name for name in filled if name != "error"] + (["error"] if "error" in filled else [])


def as_csv(rows: Sequence[Row]) -> str:
    """All rows and columns, in full precision; what is not known is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _inert(value) for name, value in row.items()} for row in rows)
    return text.getvalue()


def _inert(value: Any) -> Any:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "@", "\t")) else value


def terminal_table(rows: Sequence[Row], columns: Sequence[str], width: int | None = None, least: int = 3) -> str:
    """The rows in aligned lines, of columns that fit into a width, but for so many first ones and the errors."""
    cells = {name: [_short("run", name), *(_short(name, row[name]) for row in rows)] for name in columns}
    widths = {name: max(map(len, texts)) for name, texts in cells.items()}
    shown = list(columns)
    while width and sum(widths[name] + 2 for name in shown) - 2 > width and len(shown) > least + ("error" in shown):
        shown.pop(-2 if "error" in shown else -1)
    aligned = [
        [text.rjust(widths[name]) if _is_numeric(name, rows) else text.ljust(widths[name]) for text in cells[name]]
        for name in shown
    ]
    return "\n".join("  ".join(line).rstrip() for line in zip(*aligned))


def _short(name: str, value: Any) -> str:
    text = printable(_shown(name, value))
    return text if len(text) <= WIDEST else text[: WIDEST - 1] + "…"


def _write(path: Path, text: str) -> None:
    try:
        with atomic_write(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path} cannot be written ({error.strerror or error}); name a folder with output=") from error


# The page


def render(runs: Sequence[Run], rows: Sequence[Row], keys: Sequence[str], metric: str) -> str:
    """The page of many runs, in the order of the rows."""
    columns = [name for name in _columns(rows, keys, metric) if name != "error"]
    counts = [f"{n} {status}" for status in STATUSES if (n := sum(run.status == status for run in runs))]
    shown = _with_pictures(runs, keys)
    left = sum((run.path / "samples.png").exists() for run in runs) - len(shown)
    return page.render(
        "comparison.html",
        title=f"{len(runs)} runs",
        subtitle=f"{', '.join(counts)}; sorted by {metric}, the best first",
        metric=metric,
        columns=[_head(name, rows, metric) for name in columns],
        rows=[[_cell(name, row[name]) for name in columns] for row in rows],
        charts=_charts(runs, rows, keys, metric),
        pictures=shown,
        errors=[{"name": run.name, "why": run.error} for run in runs if run.error],
        mixed=_mixed(keys),
        note=f"Of {left} further runs the samples are left out." if left > 0 else "",
    )


def _mixed(keys: Sequence[str]) -> str:
    """What to keep in mind where runs model different things."""
    found = [key for key in keys if key in ("dataset", "dataset.binarize", "dataset.image_size", "likelihood")]
    return f"the runs differ in {' and '.join(found)}: their nats do not compare" if found else ""


def _with_pictures(runs: Sequence[Run], keys: Sequence[str]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for run in runs:
        data = page.picture(run.path / "samples.png") if len(found) < MOST_PICTURES else None
        if data:
            elbo = run.number("elbo")
            found.append(
                {"data": data, "caption": _label(run, keys) + ("" if elbo is None else f", test ELBO {elbo:,.2f}")}
            )
    return found


def _head(name: str, rows: Sequence[Row], metric: str) -> dict[str, Any]:
    order = "ascending" if metric in LOWER_IS_BETTER else "descending"
    return {"name": name, "numeric": _is_numeric(name, rows), "sorted": order if name == metric else None}


def _is_numeric(name: str, rows: Sequence[Row]) -> bool:
    return all(row[name] is None or finite(row[name]) is not None for row in rows)


def _cell(name: str, value: Any) -> dict[str, str]:
    kinds = {"run": "name", "status": "status"}
    kind = kinds.get(name, "n" if finite(value) is not None else "")
    return {"kind": kind, "value": "" if value is None else str(value), "shown": _shown(name, value)}


def _shown(name: str, value: Any) -> str:
    """Numbers of the runs to a few digits; settings as they were given."""
    return page.number(value) if value is None or name in RESULTS else show(value)


def _label(run: Run, keys: Sequence[str]) -> str:
    """A run's name, with what it was set to where that is short; the latter alone for a job of a sweep that is named
    by it."""
    flat = run.flat_settings()
    own = " ".join(f"{key}={show(flat[key])}" for key in keys if key in flat)
    if run.name == own.replace("=", "-").replace(" ", "__"):
        return own
    return f"{run.name}: {own}" if own and len(own) <= WIDEST else run.name


def _charts(runs: Sequence[Run], rows: Sequence[Row], keys: Sequence[str], metric: str) -> dict[str, Spec]:
    charts = {}
    scored = [row for row in rows if row[metric] is not None] if metric in rows[0] else []
    settings = map(_column, keys)
    axes = [key for key in settings if len({str(row[key]) for row in scored}) > 1][: MOST_AXES - 1]
    if axes and len(scored) > 1:
        charts["parallel"] = _parallel(scored[:MOST_LINES], [*axes, metric])
    drawn = runs[:MOST_CURVES]
    most = max(2, MOST_POINTS // len(drawn))
    validated = any(line["split"] == "validation" for run in drawn for line in run.metrics)
    split = "validation" if validated else "train"
    points = [point for run in drawn for point in page.thinned(_curve(run, split, _label(run, keys)), most)]
    if points:
        names = list(dict.fromkeys(point["run"] for point in points))
        charts["curves"] = page.overlaid(points, f"{split} ELBO, nats per image", names)
    return charts


def _curve(run: Run, split: str, label: str) -> list[dict[str, Any]]:
    """A run's ELBO by epoch."""
    return [
        {"run": label, "epoch": line["epoch"], "value": value}
        for line in run.metrics
        if line["split"] == split and (value := finite(line.get("elbo"))) is not None
    ]


def _parallel(rows: Sequence[Row], axes: Sequence[str]) -> Spec:
    metric, points, ends = axes[-1], [], []
    score = _places([row[metric] for row in rows])
    if metric in LOWER_IS_BETTER:
        score = [1 - place for place in score]
    for axis in axes:
        values = [row[axis] for row in rows]
        places = _places(values)
        for row, place, mark in zip(rows, places, score):
            shown = _shown(axis, row[axis])
            points.append({"run": row["run"], "axis": axis, "place": place, "shown": shown, "score": mark})
        written = dict(zip(places, (_shown(axis, value) for value in values)))
        ends += [{"axis": axis, "place": place, "shown": written[place]} for place in _apart(sorted(written))]
    return page.parallel(points, axes, ends)


def _apart(places: Sequence[float]) -> list[float]:
    """The first and the last of some sorted places, and of those between as many as do not crowd."""
    kept = [places[0]]
    for place in places[1:-1]:
        if place - kept[-1] >= CLOSEST and places[-1] - place >= CLOSEST:
            kept.append(place)
    return kept + [places[-1]] if places[-1] > places[0] else kept


def _places(values: Sequence[Any]) -> list[float]:
    """Where values lie on an axis from 0 to 1: numbers by size, on a logarithmic scale if they are all positive and
    span more than a factor of 20; anything else in its alphabetical order, evenly."""
    if all(finite(value) is not None for value in values):
        low, high = min(values), max(values)
        scale = math.log if low > 0 and high / low > 20 else float
        span = scale(high) - scale(low)
        return [0.5 if span == 0 else (scale(value) - scale(low)) / span for value in values]
    order = sorted({show(value) for value in values})
    return [order.index(show(value)) / max(1, len(order) - 1) for value in values]
