"""`comparison.html`: a table of runs, their curves, their settings beside their scores, and their samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from vae_cli.constraints import show
from vae_cli.reporting import charts, page, run_charts
from vae_cli.reporting.comparison import Comparison, cell_text, setting_column
from vae_cli.runs.reader import LOWER_IS_BETTER, STATUSES, finite

MOST_PICTURES = 60
MOST_AXES = 8
MOST_CURVES = 60
MOST_POINTS = 4000  # of all curves together
MOST_LINES = 300  # through the parallel axes: of the best runs
CLOSEST = 0.05  # of an axis' length, between two texts beside it


def render(comparison: Comparison) -> str:
    """Return the page of a comparison."""
    runs, metric = comparison.runs, comparison.metric
    columns = [name for name in comparison.columns if name != "error"]
    counts = {status: sum(run.status == status for run in runs) for status in STATUSES}
    counted = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    pictures = _pictures(comparison)
    left_out = sum((run.path / "samples.png").exists() for run in runs) - len(pictures)
    order = "ascending" if metric in LOWER_IS_BETTER else "descending"
    specs = {"parallel": _parallel_coordinates(comparison), "curves": _curves(comparison)}
    return page.render(
        "comparison.html",
        title=f"{len(runs)} runs",
        subtitle=f"{counted}; sorted by {metric}, the best first",
        metric=metric,
        columns=[
            {"name": name, "numeric": comparison.is_numeric(name), "sorted": order if name == metric else None}
            for name in columns
        ],
        rows=[[_cell(name, row[name]) for name in columns] for row in comparison.rows],
        charts={name: spec for name, spec in specs.items() if spec},
        pictures=pictures,
        errors=[{"name": run.name, "reason": run.error} for run in runs if run.error],
        warnings=[{"name": run.name, "text": text} for run in runs for text in run.warnings],
        warning=comparison.warning,
        note=f"The samples of {left_out} further runs are left out." if left_out > 0 else "",
    )


def _cell(column: str, value: Any) -> dict[str, str]:
    kinds = {"run": "name", "status": "status"}
    kind = kinds.get(column, "n" if finite(value) is not None else "")
    return {"kind": kind, "value": "" if value is None else str(value), "text": cell_text(column, value)}


def _pictures(comparison: Comparison) -> list[dict[str, Any]]:
    pictures: list[dict[str, Any]] = []
    for run in comparison.runs:
        data = page.picture(run.path / "samples.png") if len(pictures) < MOST_PICTURES else None
        if data:
            elbo = run.number("elbo")
            score = "" if elbo is None else f", test ELBO {elbo:,.2f}"
            caption, is_wide = comparison.label(run) + score, run.noun != "image"  # a chart
            pictures.append({"data": data, "caption": caption, "wide": is_wide})
    return pictures


def _curves(comparison: Comparison) -> dict[str, Any] | None:
    """Return the chart of the validation ELBO of the best runs, or of the training's where none was validated."""
    runs = comparison.runs[:MOST_CURVES]
    is_validated = any(line["split"] == "validation" for run in runs for line in run.metrics)
    split = "validation" if is_validated else "train"
    rows = []
    for run in runs:
        label = comparison.label(run)
        curve = [
            {"run": label, "epoch": line["epoch"], "value": value}
            for line in run.metrics
            if line["split"] == split and (value := finite(line.get("elbo"))) is not None
        ]
        rows += charts.thinned(curve, max(2, MOST_POINTS // len(runs)))
    return charts.to_spec(run_charts.run_curves(rows, f"{split} ELBO, nats per example")) if rows else None


def _parallel_coordinates(comparison: Comparison) -> dict[str, Any] | None:
    """Return the chart of the settings that differ between the runs that have a score."""
    metric = comparison.metric
    scored = [row for row in comparison.rows if row[metric] is not None]
    columns = map(setting_column, comparison.settings)
    settings = [name for name in columns if len({str(row[name]) for row in scored}) > 1][: MOST_AXES - 1]
    if not settings or len(scored) < 2:
        return None
    scored = scored[:MOST_LINES]
    # Colors are by rank, so that a run that is far off leaves the others theirs.
    order = sorted({row[metric] for row in scored})
    scores = [order.index(row[metric]) / max(1, len(order) - 1) for row in scored]
    if metric in LOWER_IS_BETTER:
        scores = [1 - score for score in scores]
    rows, marks = [], []
    for axis in (*settings, metric):
        texts = [cell_text(axis, row[axis]) for row in scored]
        positions = axis_positions([row[axis] for row in scored])
        for row, position, text, score in zip(scored, positions, texts, scores):
            rows.append({"run": row["run"], "axis": axis, "position": position, "text": text, "score": score})
        at = dict(zip(positions, texts))
        marks += [{"axis": axis, "position": position, "text": at[position]} for position in spaced(sorted(at))]
    return charts.to_spec(run_charts.parallel_coordinates(rows, [*settings, metric], marks))


def spaced(positions: Sequence[float]) -> list[float]:
    """Return the first and the last of sorted positions, and as many between as leave room for a text each."""
    kept = [positions[0]]
    for position in positions[1:-1]:
        if position - kept[-1] >= CLOSEST and positions[-1] - position >= CLOSEST:
            kept.append(position)
    return kept + [positions[-1]] if positions[-1] > positions[0] else kept


def axis_positions(values: Sequence[Any]) -> list[float]:
    """Return where values lie on an axis from 0 to 1.

    Numbers lie by their size, on a logarithmic scale if all are positive and span more than a factor of 20; other
    values are spread evenly in alphabetical order.
    """
    if all(finite(value) is not None for value in values):
        low, high = min(values), max(values)
        scale = math.log if low > 0 and high / low > 20 else float
        span = scale(high) - scale(low)
        return [0.5 if span == 0 else (scale(value) - scale(low)) / span for value in values]
    order = sorted({show(value) for value in values})
    return [order.index(show(value)) / max(1, len(order) - 1) for value in values]
