"""Charts of the levels of a hierarchy of latent variables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vae_cli.reporting.charts import (
    FEW_EPOCHS,
    MOST_POINTS,
    SPLITS,
    epoch_axis,
    nats_axis,
    scale_from_zero,
    thinned,
    values_of,
)
from vae_cli.runs.reader import finite

if TYPE_CHECKING:
    import altair as alt

ROW = 7  # levels in a row of the legend


def kl_over_epochs(records: Sequence[Mapping[str, Any]], levels: Sequence[str]) -> alt.Chart | None:
    """Return a chart of the KL of each level over the epochs, one above the other, z1 lowest; None without numbers.

    They are the validation split's, or the training's where nothing was validated. An estimate below 0 is drawn as 0.

    Args:
        records: the lines of metrics.jsonl.
        levels: their names, from the data up.
    """
    import altair as alt

    split = "validation" if any(record["split"] == "validation" for record in records) else "train"
    rows: list[dict[str, Any]] = [
        {"epoch": record["epoch"], "level": level, "order": order, "value": value, "height": max(0, value)}
        for record in records
        if record["split"] == split
        for order, level in enumerate(levels)
        if (value := finite(record.get(f"kl_{level}"))) is not None
    ]
    if not rows:
        return None
    rows = thinned(rows, MOST_POINTS)
    sums: dict[int, float] = {}
    for row in rows:
        sums[row["epoch"]] = sums.get(row["epoch"], 0) + row["height"]
    epochs, opacity = len(sums), 0.85
    nats, cut = nats_axis([{"epoch": epoch, "value": value} for epoch, value in sums.items()], from_zero=True)
    chart = alt.Chart(values_of(rows), title=f"{split} KL of each level, nats{cut}")
    marks: dict[str, Any] = {
        "line": {"strokeWidth": 1},
        "point": {"filled": True, "size": 20} if epochs <= FEW_EPOCHS else False,
    }
    mark = (
        chart.mark_bar(opacity=opacity, size=40)
        if epochs == 1
        else chart.mark_area(opacity=opacity, clip=True, **marks)
    )
    tooltip = [alt.Tooltip("epoch:Q"), alt.Tooltip("level:N"), alt.Tooltip("value:Q", format=",.4~g", title="KL")]
    return mark.encode(
        x=epoch_axis(rows),
        y=alt.Y(
            "height:Q",
            title=None,
            stack="zero",
            axis=alt.Axis(format=",.6~g"),
            scale=nats,
        ),
        color=alt.Color("level:N", scale=_colors(levels), sort=_downwards(levels), legend=_legend(levels)),
        order=alt.Order("order:Q"),
        tooltip=tooltip,
    ).properties(height=260)


def kl_per_level(values: Mapping[str, float]) -> alt.LayerChart:
    """Return a chart of the mean KL of each level in nats, z1 lowest.

    Args:
        values: by the levels' names, from the data up.
    """
    import altair as alt

    rows = [{"level": level, "kl": max(0, value), "text": f"{value:.2f}"} for level, value in values.items()]
    order, axis = _downwards(list(values)), alt.Axis(ticks=False)
    base = alt.Chart(values_of(rows)).encode(
        x=alt.X("kl:Q", title=None, scale=scale_from_zero([max(0, value) for value in values.values()])),
        y=alt.Y("level:N", sort=order, title=None, axis=axis),
    )
    numbers = base.mark_text(align="left", dx=4).encode(text="text:N")
    bars = base.mark_bar(color=SPLITS["validation"])
    title = f"KL per level, nats: {sum(values.values()):.2f} in all"
    return (bars + numbers).properties(title=title, width=400, height=max(120, 22 * len(rows)))


def _downwards(levels: Sequence[str]) -> list[str]:
    return list(levels)[::-1]


def _colors(levels: Sequence[str]) -> alt.Scale:
    """Return colors from light at the top to dark at the data."""
    import altair as alt

    return alt.Scale(domain=_downwards(levels), scheme="viridis", reverse=True)


def _legend(levels: Sequence[str]) -> alt.Legend:
    import altair as alt

    return alt.Legend(title=None, orient="top", symbolOpacity=1, columns=min(len(levels), ROW), symbolLimit=0)
