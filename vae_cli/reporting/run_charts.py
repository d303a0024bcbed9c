"""Charts of several runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vae_cli.reporting.charts import Row, epoch_axis, nats_axis, values_of

if TYPE_CHECKING:
    import altair as alt

RUNS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c6d31", "#666666"),
    *("#3b518b", "#b5a400", "#8c2d04", "#7fbc41"),
)
LETTER, WIDEST_NAME = 7.5, 120  # pixels at most of a letter, and of the name of an axis


def run_curves(rows: Sequence[Row], title: str) -> alt.LayerChart:
    """Return a chart with a line for each run over epochs; the one that is pointed at stands out and is named.

    Args:
        rows: dicts with `run`, `epoch` and `value`.
        title: of the values.
    """
    import altair as alt

    runs = list(dict.fromkeys(row["run"] for row in rows))
    has_legend = len(runs) <= len(RUNS)
    pointed = _pointed_run()
    scale = alt.Scale(domain=runs, range=[RUNS[number % len(RUNS)] for number in range(len(runs))])
    legend = alt.Legend(orient="bottom", title=None, columns=1, labelLimit=300) if has_legend else None
    nats, cut = nats_axis(rows)
    base = alt.Chart(values_of(rows), title=title + cut).encode(
        x=epoch_axis(rows),
        y=alt.Y("value:Q", title=None, scale=nats),
        color=alt.Color("run:N", scale=scale, legend=legend),
        opacity=alt.when(pointed).then(alt.value(1)).otherwise(alt.value(0.15)),
    )
    tooltip = [alt.Tooltip("run:N"), alt.Tooltip("epoch:Q"), alt.Tooltip("value:Q", format=",.6~g")]
    points = base.mark_point(filled=True, size=30, clip=True).encode(tooltip=tooltip).add_params(pointed)
    return alt.layer(base.mark_line(clip=True), points).properties(height=300 + 20 * len(runs) * has_legend)


def parallel_coordinates(rows: Sequence[Row], axes: Sequence[str], marks: Sequence[Row]) -> alt.LayerChart:
    """Return a chart with an axis for each setting and a line through them for each run, colored by its score.

    Args:
        rows: dicts with `run`, `axis`, `position` in [0, 1], `text` and `score` in [0, 1].
        axes: their names in order.
        marks: dicts with `axis`, `position` and `text`: the values written at the axes.
    """
    import altair as alt

    pointed = _pointed_run()
    # Names that would touch, where the page is narrow, are tilted; values are cut off before the next axis.
    room, letters = f"width / {len(axes)}", max(map(len, axes))
    is_narrow = f"{room} < {min(WIDEST_NAME, LETTER * letters)}"
    axis = alt.Axis(
        orient="top",
        domain=False,
        ticks=False,
        labelLimit=WIDEST_NAME,
        labelAngle=alt.ExprRef(f"{is_narrow} ? -40 : 0"),
        labelAlign=alt.ExprRef(f"{is_narrow} ? 'left' : 'center'"),
    )
    x = alt.X("axis:N", sort=list(axes), title=None, scale=alt.Scale(type="point"), axis=axis)
    y = alt.Y("position:Q", axis=None, scale=alt.Scale(domain=[-0.06, 1.06]))
    color = alt.Color("score:Q", legend=None, scale=alt.Scale(scheme="viridis", domain=[0, 1]))
    opacity = alt.when(pointed).then(alt.value(1)).otherwise(alt.value(0.12))
    tooltip = [alt.Tooltip("run:N"), alt.Tooltip("axis:N"), alt.Tooltip("text:N", title="value")]
    base = alt.Chart(values_of(rows)).encode(x=x, y=y, color=color, opacity=opacity)
    lines = base.mark_line(strokeWidth=2).encode(detail="run:N")
    points = base.mark_point(filled=True, size=60).encode(tooltip=tooltip).add_params(pointed)
    rules = alt.Chart(values_of([{"axis": name} for name in axes])).mark_rule(color="#999").encode(x=x)
    texts = alt.Chart(values_of(marks)).encode(x=x, y=y, text="text:N")
    limit = alt.ExprRef(f"min({WIDEST_NAME}, max(44, {room} - 10))")
    place: dict[str, Any] = {"align": "left", "dx": 7, "fontSize": 12, "limit": limit}
    halo = texts.mark_text(**place, stroke="white", strokeWidth=4, strokeJoin="round")
    return alt.layer(rules, lines, points, halo, texts.mark_text(**place, fill="#333")).properties(height=300)


def _pointed_run() -> alt.Parameter:
    import altair as alt

    return alt.selection_point(fields=["run"], on="pointerover", nearest=True)
