"""Charts of examples that are no images: vectors and sequences, and a model's beside the data's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vae_cli.data.columns import Column, places
from vae_cli.reporting.charts import Row, values_of

if TYPE_CHECKING:
    import altair as alt

MOST_COLUMNS = 30  # with a histogram each
MOST_CORRELATED = 60  # columns of a matrix of correlations
BARS = 24  # of a histogram
CURVES = 4  # sequences in a row of each kind
KINDS = {"test data": "#0072B2", "samples": "#E69F00"}


def marginals(
    data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], columns: Sequence[Column]
) -> alt.ConcatChart:
    """Return a chart of each column of the data with that of the samples over it, as shares of their number: a
    histogram, or of categories a bar for each.

    Args:
        data: NaN where a value is missing.
        samples: of the model.
        columns: whose vectors they are, of which the first 30 are shown.
    """
    import altair as alt

    title = "each column: test data and samples"
    if len(columns) > MOST_COLUMNS:
        title += f", the first {MOST_COLUMNS} of {len(columns):,}"
    cells: list[alt.Chart] = []
    for column, place in list(zip(columns, places(columns)))[:MOST_COLUMNS]:
        draw = _categories if column.categories else _histogram
        cells.append(draw(data[:, place], samples[:, place], column))
    return alt.concat(*cells, columns=min(5, len(cells)), title=alt.Title(title, anchor="start"))


def _histogram(data: np.ndarray, samples: np.ndarray, column: Column) -> alt.Chart:
    import altair as alt

    data, samples = data[np.isfinite(data)], samples[np.isfinite(samples)]
    low, high = np.quantile(data, [0.002, 0.998]) if len(data) else (0.0, 1.0)
    margin = 0.15 * (high - low) or 0.5
    is_whole = bool((data == np.rint(data)).all()) and high - low <= BARS
    edges = np.arange(np.floor(low), high + 2) - 0.5 if is_whole else np.linspace(low - margin, high + margin, BARS)
    rows: list[Row] = []
    for kind, values in (("test data", data), ("samples", samples)):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        share = counts / max(1, len(values))
        rows += [{"x": float(x), "share": float(y), "kind": kind} for x, y in zip(edges, [*share, share[-1]])]
    lines = alt.Chart(values_of(rows), title=_title(column)).mark_line(interpolate="step-after", strokeWidth=1.6)
    axis = alt.Axis(tickCount=3)
    return lines.encode(
        x=alt.X("x:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=axis),
        y=alt.Y("share:Q", title=None, axis=None),
        color=_kind_color(),
    ).properties(width=130, height=80)


def _categories(data: np.ndarray, samples: np.ndarray, column: Column) -> alt.Chart:
    import altair as alt

    rows: list[Row] = []
    for kind, values in (("test data", data), ("samples", samples)):
        observed = values[np.isfinite(values).all(1)]
        share = observed.mean(0) if len(observed) else np.zeros(values.shape[1])
        share = share if column.kind == "categorical" else np.array([1 - share[0], share[0]])
        rows += [{"value": _short(v), "share": float(y), "kind": kind} for v, y in zip(column.categories, share)]
    bars = alt.Chart(values_of(rows), title=_title(column)).mark_bar()
    few = len(column.categories) <= 6
    return bars.encode(
        x=alt.X("value:N", title=None, axis=alt.Axis(labels=few, ticks=False, labelAngle=-30, labelLimit=70)),
        xOffset=alt.XOffset("kind:N", sort=list(KINDS)),
        y=alt.Y("share:Q", title=None, axis=None),
        color=_kind_color(),
        tooltip=["value:N", "kind:N", alt.Tooltip("share:Q", format=".1%")],
    ).properties(width=130, height=80)


def _title(column: Column) -> alt.Title:
    import altair as alt

    return alt.Title(_short(column.name), fontSize=12)


def _kind_color() -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=list(KINDS), range=list(KINDS.values()))
    return alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def correlations(
    data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], names: Sequence[str]
) -> alt.HConcatChart:
    """Return the correlations of the columns of the data, and of the samples, beside each other."""
    import altair as alt

    names = [_short(name) for name in names[:MOST_CORRELATED]]
    labels = _apart(names)
    cells = []
    for title, values in (("test data", data), ("samples", samples)):
        matrix = _correlation(values[:, : len(names)])
        rows = [
            {"row": labels[i], "column": labels[j], "correlation": float(matrix[i, j])}
            for i in range(len(names))
            for j in range(len(names))
        ]
        has_names = len(names) <= 30
        axis = alt.Axis(labels=has_names, ticks=False, labelLimit=110, title=None)
        cells.append(
            alt.Chart(values_of(rows), title=f"correlations of {title}")
            .mark_rect()
            .encode(
                x=alt.X("column:N", sort=labels, axis=axis),
                y=alt.Y("row:N", sort=labels, axis=axis),
                color=alt.Color(
                    "correlation:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1], reverse=True), title=None
                ),
                tooltip=["row:N", "column:N", alt.Tooltip("correlation:Q", format=".2f")],
            )
            .properties(width=300, height=300)
        )
    return alt.hconcat(*cells)


def _correlation(values: np.ndarray) -> np.ndarray:
    """Return the correlations of columns over the rows in which both are there."""
    here = np.isfinite(values).astype(float)
    with np.errstate(invalid="ignore", divide="ignore"):
        u = np.nan_to_num((values - np.nanmean(values, 0)) / np.nanstd(values, 0))
        count, sums, squares = here.T @ here, u.T @ here, np.square(u).T @ here
        spread = squares / count - np.square(sums / count)
        matrix = (u.T @ u / count - sums * sums.T / count**2) / np.sqrt(spread * spread.T)
    return np.nan_to_num(matrix, posinf=0.0, neginf=0.0).clip(-1, 1)


def unexplained_shares(
    data: Float[np.ndarray, "n d"], reconstructed: Float[np.ndarray, "n d"]
) -> Float[np.ndarray, "d"]:
    """Return the mean squared error of each column over its variance, over the values that are there."""
    here = np.isfinite(data)
    count = np.maximum(here.sum(0), 1)
    mean = np.where(here, data, 0).sum(0) / count
    variance = np.square(np.where(here, data - mean, 0)).sum(0) / count
    error = np.square(np.where(here, data - reconstructed, 0)).sum(0) / count
    return error / np.maximum(variance, 1e-12)


def unexplained(shares: Float[np.ndarray, "d"], names: Sequence[str]) -> alt.Chart:
    """Return a bar for each column: the part of its variance that reconstructions of test data leave, largest first."""
    import altair as alt

    order = np.argsort(-shares)[:MOST_CORRELATED]
    labels = _apart([_short(names[n]) for n in order])
    rows = [{"column": label, "share": float(min(shares[n], 1.5))} for label, n in zip(labels, order)]
    title = "part of each value's variance that reconstructions of test data leave"
    return (
        alt.Chart(values_of(rows), title=title)
        .mark_bar(color=KINDS["test data"])
        .encode(
            x=alt.X("share:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0)),
            y=alt.Y("column:N", sort=labels, title=None, axis=alt.Axis(ticks=False, labelLimit=200)),
        )
        .properties(width=420, height=max(60, 18 * len(rows)))
    )


def sequences(
    above: Float[np.ndarray, "n c l"], below: Float[np.ndarray, "n c l"], kinds: tuple[str, str]
) -> alt.ConcatChart:
    """Return curves of some sequences, a row of each kind, with a color for each channel.

    Args:
        above: the first kind's; NaN where a value is missing.
        below: the second kind's.
        kinds: their names.
    """
    import altair as alt

    cells = []
    for kind, values in zip(kinds, (above, below)):
        for number, sequence in enumerate(values[:CURVES]):
            rows: list[dict[str, Any]] = [
                {"place": place, "value": float(value), "channel": channel}
                for channel, curve in enumerate(sequence)
                for place, value in enumerate(curve)
                if np.isfinite(value)
            ]
            cells.append(
                alt.Chart(values_of(rows), title=alt.Title(f"{kind} {number + 1}", fontSize=12))
                .mark_line(strokeWidth=1.2)
                .encode(
                    x=alt.X("place:Q", title=None, axis=alt.Axis(tickCount=3), scale=alt.Scale(nice=False)),
                    y=alt.Y("value:Q", title=None, scale=alt.Scale(zero=False), axis=alt.Axis(tickCount=3)),
                    color=alt.Color("channel:N", legend=None if len(sequence) == 1 else alt.Legend(orient="top")),
                )
                .properties(width=170, height=90)
            )
    return alt.concat(*cells, columns=CURVES)


def _apart(names: Sequence[str]) -> list[str]:
    """Return names, with a number behind one that was there before."""
    return [name if name not in names[:n] else f"{name} {n}" for n, name in enumerate(names)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
