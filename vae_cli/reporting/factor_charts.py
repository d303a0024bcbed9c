"""A chart of what each latent dimension tells of each factor of variation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from vae_cli.reporting.charts import SPLITS, values_of

if TYPE_CHECKING:
    import altair as alt

MOST_SHOWN = 40  # dimensions
HEADING = 44  # pixels of the title and the names of the factors, which a page takes from the chart's height


def of_scores(scores: Mapping[str, Any]) -> alt.LayerChart:
    """Return the heat map of the scores in evaluation.json.

    Raises:
        ValueError: if they are not those of vae-evaluate.
    """
    shares, factors = np.array(scores["information"], np.float64), scores["factors"]
    if shares.ndim != 2 or shares.shape[1] != len(factors):
        raise ValueError(f"{shares.shape} shares are not of {len(factors)} factors")
    return heat_map(shares, factors)


def heat_map(shares: Float[np.ndarray, "d f"], factors: Sequence[str]) -> alt.LayerChart:
    """Return a table in colors: the share of each factor's entropy that each dimension tells, in percent.

    Args:
        shares: mutual information over entropy; of many dimensions the 40 that tell most of any factor are shown.
        factors: their names.
    """
    import altair as alt

    shown = np.sort(np.argsort(-shares.max(1), kind="stable")[:MOST_SHOWN])
    dimensions = [f"z{number}" for number in shown.tolist()]
    rows = [
        {"dimension": name, "factor": factor, "share": share, "text": f"{share:.0%}"}
        for name, number in zip(dimensions, shown.tolist())
        for factor, share in zip(factors, shares[number].clip(0, 1).tolist())
    ]
    part = f", {MOST_SHOWN} of {len(shares):,} dimensions" if len(shares) > MOST_SHOWN else ""
    base = alt.Chart(values_of(rows), title=f"share of each factor's entropy that each dimension tells{part}").encode(
        x=alt.X("factor:N", sort=list(factors), title=None, axis=alt.Axis(orient="top", labelAngle=0, ticks=False)),
        y=alt.Y("dimension:N", sort=dimensions, title=None, axis=alt.Axis(ticks=False)),
    )
    cells = base.mark_rect().encode(
        color=alt.Color(
            "share:Q",
            scale=alt.Scale(range=["white", SPLITS["validation"]], domain=[0, 1], interpolate="rgb"),
            legend=None,
        ),
        tooltip=["dimension:N", "factor:N", alt.Tooltip("share:Q", format=".1%")],
    )
    color = alt.when(alt.datum.share > 0.5).then(alt.value("white")).otherwise(alt.value("#222"))
    texts = base.mark_text(fontSize=11).encode(text="text:N", color=color)
    return alt.layer(cells, texts).properties(width=max(280, 70 * len(factors)), height=HEADING + 24 * len(shown))
