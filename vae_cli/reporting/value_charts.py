"""Charts of examples that are no images: vectors and sequences, and a model's beside the data's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vae_cli.reporting.charts import Row, values_of

if TYPE_CHECKING:
    import altair as alt

MOST_COLUMNS = 30  # with a histogram each
MOST_CORRELATED = 60  # columns of a matrix of correlations
BARS = 24  # of a histogram
CURVES = 4  # sequences in a row of each kind
COLORS = {"test data": "#0072B2", "samples": "#E69F00", "reconstructions": "#E69F00"}


def marginals(
    data: Float[np.ndarray, "n d"], samples: Float[np.ndarray, "m d"], names: Sequence[str]
) -> alt.ConcatChart:
    """Return a histogram of each column of the data with that of the samples over it, as shares of their number.

    Args:
        data: NaN where a value is missing.
        samples: of the model.
        names: of the columns, of which the first 30 are shown.
    """
    import altair as alt

    shown = range(min(len(names), MOST_COLUMNS))
    title = "each value: test data and samples"
    if len(names) > MOST_COLUMNS:
        title += f", the first {MOST_COLUMNS} of {len(names):,}"
    cells = [_marginal(data[:, column], samples[:, column], names[column]) for column in shown]
    return alt.concat(*cells, columns=min(5, len(cells)), title=alt.Title(title, anchor="start"))


def _marginal(data: np.ndarray, samples: np.ndarray, name: str) -> alt.Chart:
    import altair as alt

    data = data[np.isfinite(data)]
    low, high = np.quantile(data, [0.002, 0.998]) if len(data) else (0.0, 1.0)
    margin = 0.15 * (high - low) or 0.5
    whole = bool(len(data)) and bool((data == np.rint(data)).all()) and high - low <= BARS
    edges = (
        np.arange(np.floor(low), np.ceil(high) + 2) - 0.5 if whole else np.linspace(low - margin, high + margin, BARS)
    )
    rows: list[Row] = []
    for kind, values in (("test data", data), ("samples", samples[np.isfinite(samples)])):
        counts, _ = np.histogram(np.clip(values, edges[0], edges[-1]), edges)
        share = counts / max(1, len(values))
        rows += [{"x": float(x), "share": float(y), "kind": kind} for x, y in zip(edges, [*share, share[-1]])]
    return (
        alt.Chart(values_of(rows), title=alt.Title(_short(name), fontSize=12))
        .mark_line(interpolate="step-after", strokeWidth=1.6)
        .encode(
            x=alt.X("x:Q", title=None, scale=alt.Scale(zero=False, nice=False), axis=alt.Axis(tickCount=3)),
            y=alt.Y("share:Q", title=None, axis=None),
            color=alt.Color(
                "kind:N",
                scale=alt.Scale(domain=["test data", "samples"], range=[COLORS["test data"], COLORS["samples"]]),
                legend=alt.Legend(title=None, orient="top"),
            ),
        )
        .properties(width=130, height=80)
    )


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
    here = np.isfinite(values)
    filled = np.where(here, values, np.nanmean(np.where(here, values, np.nan), axis=0, keepdims=True))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.nan_to_num(np.corrcoef(filled, rowvar=False).reshape(values.shape[1], values.shape[1]))


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
        .mark_bar(color=COLORS["test data"])
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
