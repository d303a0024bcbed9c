"""Charts of examples that are no images: vectors and sequences, and a model's beside the data's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os.path import commonprefix
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vae_cli.data.columns import Column, places
from vae_cli.reporting.charts import Row, values_of

if TYPE_CHECKING:
    import altair as alt

MOST_COLUMNS = 30  # with a histogram each
MOST_CORRELATED = 60  # columns of a matrix of correlations
MOST_BARS = 8  # categories with bars of their own
BARS = 24  # of a histogram
CURVES = 4  # sequences in a row of each kind
DATA, SAMPLES = "#0072B2", "#E69F00"
MOST_UNEXPLAINED = 1.5  # at which a bar is cut off


def marginals(
    data: Float[np.ndarray, "n d"],
    samples: Float[np.ndarray, "m d"],
    columns: Sequence[Column],
    kind: str = "test data",
) -> alt.ConcatChart:
    """Return a chart of each column of the data with that of the samples over it, as shares of their number: a
    histogram, or of categories a bar for each.

    Args:
        data: NaN where a value is missing.
        samples: of the model.
        columns: whose vectors they are, of which the first 30 are shown.
        kind: what the data are.
    """
    import altair as alt

    title = f"each column: {kind} and samples"
    if len(columns) > MOST_COLUMNS:
        title += f", the first {MOST_COLUMNS} of {len(columns):,}"
    cells: list[alt.Chart] = []
    for column, place in list(zip(columns, places(columns)))[:MOST_COLUMNS]:
        draw = _categories if column.categories else _histogram
        pair = {kind: data[:, place], "samples": samples[:, place]}
        cells.append(draw(pair, column))
    chart = alt.concat(*cells, columns=min(5, len(cells)), title=alt.Title(title, anchor="start"))
    return chart.resolve_scale(x="independent", xOffset="independent")


def _histogram(values: Mapping[str, np.ndarray], column: Column) -> alt.Chart:
    import altair as alt

    observed = {kind: each[np.isfinite(each)] for kind, each in values.items()}
    data = next(iter(observed.values()))
    low, high = np.quantile(data, [0.002, 0.998]) if len(data) else (0.0, 1.0)
    margin = 0.15 * (high - low) or 0.5
    is_whole = bool((data == np.rint(data)).all()) and high - low <= BARS
    edges = np.arange(np.floor(low), high + 2) - 0.5 if is_whole else np.linspace(low - margin, high + margin, BARS)
    rows: list[Row] = []
    for kind, each in observed.items():
        counts, _ = np.histogram(each, edges)
        share = counts / max(1, len(each))
        rows += [{"x": float(x), "share": float(y), "kind": kind} for x, y in zip(edges, [*share, share[-1]])]
    lines = alt.Chart(values_of(rows), title=_title(column)).mark_line(interpolate="step-after", strokeWidth=1.6)
    axis = alt.Axis(tickCount=3, labelOverlap=True)
    return lines.encode(
        x=alt.X("x:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=axis),
        y=alt.Y("share:Q", title=None, axis=None),
        color=_kind_color(list(values)),
    ).properties(width=130, height=80)


def _categories(values: Mapping[str, np.ndarray], column: Column) -> alt.Chart:
    import altair as alt

    shares: dict[str, np.ndarray] = {}
    for kind, each in values.items():
        observed = each[np.isfinite(each).all(1)]
        share = observed.mean(0) if len(observed) else np.zeros(each.shape[1])
        shares[kind] = share if column.kind == "categorical" else np.array([1 - share[0], share[0]])
    names, title = _without_prefix(column.categories), _title(column)
    order = np.arange(len(names))
    if len(names) > MOST_BARS:  # the most frequent ones
        order = np.argsort(-next(iter(shares.values())))[:MOST_BARS]
        title.subtitle = f"{MOST_BARS} of {len(names)} values"
    rows: list[Row] = []
    for kind, share in shares.items():
        rows += [{"value": names[n], "share": float(share[n]), "kind": kind} for n in order]
    bars = alt.Chart(values_of(rows), title=title).mark_bar()
    is_dense = len(order) > 4
    axis = alt.Axis(
        ticks=False, labelAngle=-60 if is_dense else -30, labelLimit=70, labelFontSize=9 if is_dense else 10
    )
    return bars.encode(
        x=alt.X("value:N", title=None, sort=None, axis=axis),
        xOffset=alt.XOffset("kind:N", sort=list(values)),
        y=alt.Y("share:Q", title=None, axis=None),
        color=_kind_color(list(values)),
        tooltip=["value:N", "kind:N", alt.Tooltip("share:Q", format=".1%")],
    ).properties(width=130, height=80)


def _title(column: Column) -> alt.Title:
    import altair as alt

    return alt.Title(_short(column.name), fontSize=12)


def _kind_color(kinds: list[str]) -> alt.Color:
    import altair as alt

    scale = alt.Scale(domain=kinds, range=[DATA, SAMPLES])
    return alt.Color("kind:N", scale=scale, legend=alt.Legend(title=None, orient="top"))


def correlations(
    data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], names: Sequence[str], kind: str = "test data"
) -> alt.HConcatChart:
    """Return the correlations of the columns of the data, and of the samples, beside each other.

    Args:
        data: NaN where a value is missing.
        samples: of the model.
        names: of the values of a vector, of which the first 60 are shown.
        kind: what the data are.
    """
    import altair as alt

    part = f", the first {MOST_CORRELATED} of {len(names):,}" if len(names) > MOST_CORRELATED else ""
    names = [_short(name) for name in names[:MOST_CORRELATED]]
    labels = _apart(names)
    cells = []
    for title, values in ((kind, data), ("samples", samples)):
        matrix = _correlation(values[:, : len(names)])
        rows = [
            {"row": labels[i], "column": labels[j], "correlation": float(matrix[i, j])}
            for i in range(len(names))
            for j in range(len(names))
        ]
        is_dense = len(names) > 30
        axis = alt.Axis(
            ticks=False, labelLimit=110, title=None, labelFontSize=6 if is_dense else 10, labelOverlap=False
        )
        cells.append(
            alt.Chart(values_of(rows), title=f"correlations of {title}{part}")
            .mark_rect()
            .encode(
                x=alt.X("column:N", sort=labels, axis=axis),
                y=alt.Y("row:N", sort=labels, axis=axis),
                color=alt.Color(
                    "correlation:Q", scale=alt.Scale(scheme="redblue", domain=[-1, 1], reverse=True), title=None
                ),
                tooltip=["row:N", "column:N", alt.Tooltip("correlation:Q", format=".2f")],
            )
            .properties(width=440 if is_dense else 300, height=440 if is_dense else 300)
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
    data: Float[np.ndarray, "n d"], reconstructed: Float[np.ndarray, "n d"], columns: Sequence[Column]
) -> Float[np.ndarray, "c"]:
    """Return the mean squared error of each column over its variance, over the values that are there."""
    here = np.isfinite(data)
    count = np.maximum(here.sum(0), 1)
    mean = np.where(here, data, 0).sum(0) / count
    variance = np.square(np.where(here, data - mean, 0)).sum(0) / count
    error = np.square(np.where(here, data - reconstructed, 0)).sum(0) / count
    shares = [error[place].sum() / max(variance[place].sum(), 1e-12) for place in places(columns)]
    return np.array(shares)


def unexplained(shares: Float[np.ndarray, "c"], columns: Sequence[Column]) -> alt.LayerChart:
    """Return a bar for each column: the part of its variance that reconstructions of test data leave, largest first."""
    import altair as alt

    order = np.argsort(-shares)[:MOST_CORRELATED]
    labels = _apart([_short(columns[n].name) for n in order])
    rows = [
        {"column": label, "share": float(min(shares[n], MOST_UNEXPLAINED)), "text": f"{shares[n]:.0%}"}
        for label, n in zip(labels, order)
    ]
    part = f", the {MOST_CORRELATED} largest of {len(columns):,}" if len(columns) > MOST_CORRELATED else ""
    base = alt.Chart(values_of(rows), title=f"unexplained variance of each column of test data{part}").encode(
        x=alt.X("share:Q", title=None, axis=alt.Axis(format="%"), scale=alt.Scale(domainMin=0)),
        y=alt.Y("column:N", sort=labels, title=None, axis=alt.Axis(ticks=False, labelLimit=200)),
    )
    texts = base.mark_text(align="left", dx=4, fontSize=10).encode(text="text:N")
    return alt.layer(base.mark_bar(color=DATA), texts).properties(width=420, height=max(60, 18 * len(rows)))


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

    shown = np.concatenate([above[:CURVES], below[:CURVES]])
    domain = [float(np.nanmin(shown)), float(np.nanmax(shown))]  # of all, so that they can be compared
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
                    y=alt.Y("value:Q", title=None, scale=alt.Scale(domain=domain), axis=alt.Axis(tickCount=3)),
                    color=alt.Color("channel:N", legend=None if len(sequence) == 1 else alt.Legend(orient="top")),
                )
                .properties(width=170, height=90)
            )
    return alt.concat(*cells, columns=CURVES)


def _without_prefix(names: Sequence[str]) -> list[str]:
    """Return names short enough for an axis, without a long beginning that all of them have."""
    prefix = commonprefix(list(names))
    cut = len(prefix) if len(prefix) > 6 and len(prefix) < min(map(len, names)) else 0
    return _apart([f"…{name[cut:]}"[:14] if cut else name if len(name) <= 14 else f"{name[:13]}…" for name in names])


def _apart(names: Sequence[str]) -> list[str]:
    """Return names, with a number behind one that was there before."""
    return [name if name not in names[:n] else f"{name} {n}" for n, name in enumerate(names)]


def _short(name: str) -> str:
    return name if len(name) <= 24 else f"{name[:23]}…"
