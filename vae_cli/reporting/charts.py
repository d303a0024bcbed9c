"""Charts by Altair: one specification each, drawn by a browser in a page and by vl-convert in a PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from vae_cli.runs.reader import finite

if TYPE_CHECKING:
    import altair as alt

CURVES = {  # title of each quantity in metrics.jsonl
    "elbo": "ELBO, nats per example",
    "bound": "bound, nats per example",
    "reconstruction": "E_q log p(x|z), nats per example",
    "kl": "KL, nats per example",
    "loss": "loss",
    "lr": "learning rate",
    # terms of some losses
    "total_correlation": "total correlation of the code, nats",
    "discriminator_accuracy": "accuracy of the discriminator",
    "mutual_information": "mutual information of x and z, nats",
    "dimension_kl": "KL dimension by dimension, nats",
    "mmd": "squared MMD between codes and prior",
    "covariance_off_diagonal": "squared covariances of the code",
    "covariance_diagonal": "squared distances of its variances from 1",
}
IN_PICTURE = ("elbo", "reconstruction", "kl", "kl_levels", "lr")  # of curves.png
MOST_POINTS = 500  # of a curve
FEW_EPOCHS = 30  # up to which every epoch has a mark

# Okabe's and Ito's colors and Tol's muted ones, which color-blind readers can tell apart too.
SPLITS = {"train": "#E69F00", "validation": "#0072B2", "test": "#009E73"}
LABELS = (
    *("#332288", "#88CCEE", "#117733", "#DDCC77", "#CC6677", "#44AA99", "#882255", "#999933", "#AA4499", "#222222"),
)
MOST_LABELS = 20  # with a color and a name each
MOST_DIMENSIONS = 64  # with their numbers below their bars
BINS = 60
DASHED: dict[str, Any] = {"color": "#555", "strokeDash": [5, 4], "strokeWidth": 1.2}
SCALE = 1.5  # pixels of a PNG for each of a chart

Row = dict[str, Any]


def to_spec(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart's Vega-Lite specification for a page, as wide as its place there."""
    return _styled(chart.properties(width="container", autosize={"type": "fit", "contains": "padding"}))


def to_png(chart: alt.TopLevelMixin) -> Image.Image:
    """Return a picture of a chart."""
    import vl_convert

    png = vl_convert.vegalite_to_png(_styled(chart), vl_version=vegalite_version(), scale=SCALE)
    return Image.open(io.BytesIO(png)).convert("RGB")


def vegalite_version() -> str:
    """Return the newest version of Vega-Lite that vl-convert has."""
    import vl_convert

    return vl_convert.get_vegalite_versions()[-1]


def _styled(chart: Any) -> dict[str, Any]:
    text = {"labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    config = {
        "font": "system-ui, sans-serif",
        "title": {"anchor": "start", "frame": "group", "fontSize": 14},
        "axis": text | {"gridColor": "#eee"},
        "legend": text,
        "view": {"stroke": None},
    }
    padding = {"left": 8, "top": 5, "right": 12, "bottom": 5}
    return chart.properties(padding=padding).configure(**config).to_dict(validate=False)


# Training


def curves(records: Sequence[Mapping[str, Any]]) -> dict[str, alt.LayerChart]:
    """Return a chart of each quantity over epochs, with a line for each split, by the quantity's name.

    Pointing at an epoch shows the values there. The bound has a chart only where it differs from the ELBO.

    Args:
        records: the lines of metrics.jsonl.
    """
    charts = {}
    for name, title in CURVES.items():
        if name == "bound" and all(record.get("bound") == record.get("elbo") for record in records):
            continue
        rows = [
            {"epoch": record["epoch"], "split": record["split"], "value": value}
            for record in records
            if record["split"] in SPLITS and (value := finite(record.get(name))) is not None
        ]
        if rows:
            charts[name] = _curve(rows, name, title)
    return charts


def curves_picture(charts: Mapping[str, alt.LayerChart]) -> Image.Image:
    """Return a picture of the curves of ELBO, reconstruction, KL and learning rate beside and below each other."""
    import altair as alt

    chosen = [charts[name] for name in IN_PICTURE if name in charts] or list(charts.values())
    picture = alt.concat(*(chart.properties(width=330, height=190) for chart in chosen), columns=2)
    return to_png(picture.resolve_scale(color="independent") if "kl_levels" in charts else picture)


def _curve(rows: Sequence[Row], name: str, title: str) -> alt.LayerChart:
    import altair as alt

    test = [row for row in rows if row["split"] == "test"]
    rows = thinned([row for row in rows if row["split"] != "test"], MOST_POINTS) + test
    splits = {split: color for split, color in SPLITS.items() if any(row["split"] == split for row in rows)}
    has_few = len({row["epoch"] for row in rows}) <= FEW_EPOCHS
    hover = alt.selection_point(
        f"hover_{name}", fields=["epoch"], nearest=True, on="pointermove", clear="pointerout", empty=False
    )
    values, cut = (alt.Scale(zero=True), "") if name == "lr" else nats_axis(rows, from_zero=name == "kl")
    y = alt.Y("value:Q", title=None, axis=alt.Axis(format=",.6~g"), scale=values)
    scale = alt.Scale(domain=list(splits), range=list(splits.values()))
    color = alt.Color("split:N", scale=scale, legend=alt.Legend(orient="top", title=None))
    base = alt.Chart(values_of(rows), title=title + cut).encode(x=epoch_axis(rows))
    line = base.mark_line(clip=True).encode(y=y, color=color)
    tooltip = [alt.Tooltip("epoch:Q"), *(alt.Tooltip(f"{split}:Q", format=",.6~g") for split in splits)]
    rule = (
        base.transform_pivot("split", value="value", groupby=["epoch"])
        .mark_rule()
        .encode(opacity=alt.when(hover).then(alt.value(0.4)).otherwise(alt.value(0)), tooltip=tooltip)
        .add_params(hover)
    )
    is_marked = alt.when(hover).then(alt.value(1)).when(alt.datum.split == "test").then(alt.value(1))
    opacity = is_marked.otherwise(alt.value(int(has_few)))
    points = base.mark_point(filled=True, size=36, clip=True).encode(y=y, color=color, opacity=opacity)
    return alt.layer(line, rule, points).properties(height=260)


def nats_axis(rows: Sequence[Row], from_zero: bool = False) -> tuple[alt.Scale, str]:
    """Return the scale of nats over epochs, and what it cuts off in words, which may be empty.

    Values more than 100 median deviations and ten times the median's size from the median are cut off, unless the scale
    begins at 0. So are those of the first tenth of the epochs where all later ones span less than a third of the axis.
    """
    import altair as alt

    values, last = [row["value"] for row in rows], max(row["epoch"] for row in rows)
    late = [row["value"] for row in rows if 10 * row["epoch"] > last]
    median = float(np.median(values))
    far = max(100 * float(np.median(np.abs(np.asarray(values) - median))), 10 * abs(median))
    usual = [value for value in values if abs(value - median) <= far]
    cut = ""
    if len(usual) < len(values) and far > 0 and not from_zero:
        values, cut = usual, ", outliers cut off"
    elif last >= 10 and 0 < 3 * (max(late) - min(late)) < max(values) - min(values):
        values, cut = late, ", first epochs cut off"
    if from_zero:
        return scale_from_zero(values), cut
    return alt.Scale(zero=False, domain=[min(values), max(values)] if cut else alt.Undefined), cut


def thinned(rows: Sequence[Row], most: int) -> list[Row]:
    """Return the rows of at most so many epochs, evenly chosen, the first and the last among them."""
    epochs = sorted({row["epoch"] for row in rows})
    if len(epochs) <= most:
        return list(rows)
    kept = {epochs[round(number * (len(epochs) - 1) / (most - 1))] for number in range(most)}
    return [row for row in rows if row["epoch"] in kept]


# Latent space


def scale_from_zero(values: Sequence[float]) -> alt.Scale:
    """Return a scale of nats of KL from 0 to 1 at least, so that a KL of nothing looks like nothing."""
    import altair as alt

    return alt.Scale(domain=[min(0, *values), max(1, *values)], nice=True)


def kl_per_dim(values: Sequence[float]) -> alt.Chart:
    """Return a chart of the mean KL of each latent dimension in nats, the largest first."""
    import altair as alt

    order = np.argsort(-np.asarray(values))
    rows = [{"dimension": str(number), "kl": values[number]} for number in order.tolist()]
    axis = alt.Axis(labels=len(values) <= MOST_DIMENSIONS, ticks=False, labelAngle=0 if len(values) <= 32 else -90)
    width = max(330, min(900, 24 * len(values)))
    return (
        alt.Chart(values_of(rows), title=f"KL per dimension, nats: {sum(values):.2f} in all")
        .mark_bar(color=SPLITS["validation"])
        .encode(
            x=alt.X("dimension:N", sort=None, title="latent dimension, largest first", axis=axis),
            y=alt.Y("kl:Q", title=None, scale=scale_from_zero(values)),
        )
        .properties(width=width, height=200)
    )


def latent_codes(
    means: Float[np.ndarray, "n d"],
    labels: Int[np.ndarray, "n"] | None,
    prior: tuple[Float[np.ndarray, "d"], Float[np.ndarray, "d"]] | None = None,
    names: Sequence[str] = (),
    level: str | None = None,
    noun: str = "image",
) -> alt.LayerChart:
    """Return a chart of codes in the plane, colored by label, within two standard deviations of the prior.

    Two dimensions are shown as they are, more in their first two principal components, one as a histogram.

    Args:
        means: of q(z|x) for N images.
        labels: of the images, if they have any.
        prior: its mean and standard deviations, if it has independent dimensions.
        names: of the labels from 0 on, if they have any.
        level: the name of the level of a hierarchy that they are of.
        noun: what an example is called.
    """
    import altair as alt

    from vae_cli.data.base import label_name  # which imports torch

    if labels is not None and names and len(np.unique(labels)) <= MOST_LABELS:
        labels = np.array([label_name(label, names) for label in labels.tolist()])
    points, axes, titles = _plane(np.asarray(means, np.float64), level)
    border = np.zeros((0, len(axes))) if prior is None else _border(*prior, axes)
    title = alt.Title(
        f"means of q({level or 'z'}|x) of {len(means):,} test {noun}s",
        subtitle=[] if prior is None else "dashed: 2 standard deviations of the prior",
    )
    if len(axes) == 1:
        chart = _histogram(points[:, 0], labels, border[:, 0], titles[0], noun)
    else:
        chart = _scatter(points, labels, titles, border)
    return chart.properties(title=title)


def _border(mean: np.ndarray, std: np.ndarray, axes: np.ndarray) -> np.ndarray:
    """Return the points of the plane, or the line, of some axes at two standard deviations of a prior from its mean."""
    spread = np.linalg.cholesky((axes * std**2) @ axes.T)
    angles = np.linspace(0, 2 * np.pi, 101 if len(axes) == 2 else 3)
    directions = np.stack([np.cos(angles), np.sin(angles)][: len(axes)], axis=1)
    return axes @ mean + 2 * directions @ spread.T


def _scatter(
    points: np.ndarray, labels: np.ndarray | None, titles: tuple[str, str], border: np.ndarray
) -> alt.LayerChart:
    """Return points and a dashed border; a unit is as long upwards as to the right."""
    import altair as alt

    rows: list[Row] = [{"x": x, "y": y} for x, y in points.round(5).tolist()]
    if labels is not None:
        rows = [row | {"label": label} for row, label in zip(rows, labels.tolist())]
    all_points = np.concatenate([points, border])
    low, high = all_points.min(0), all_points.max(0)
    half = 0.52 * max(float((high - low).max()), 1e-6)
    domains = [[middle - half, middle + half] for middle in ((low + high) / 2).tolist()]
    x, y = (
        alt.X("x:Q", title=titles[0], scale=alt.Scale(domain=domains[0], nice=False)),
        alt.Y("y:Q", title=titles[1], scale=alt.Scale(domain=domains[1], nice=False)),
    )
    size = float(np.clip(30_000 / len(points), 8, 60))
    circles = alt.Chart(values_of(rows)).mark_circle(size=size, opacity=0.9)
    outline = [{"x": x, "y": y, "order": order} for order, (x, y) in enumerate(border.tolist())]
    line = alt.Chart(values_of(outline)).mark_line(**DASHED).encode(x=x, y=y, order="order:Q")
    return alt.layer(circles.encode(x=x, y=y, color=_label_color(labels)), line).properties(width=400, height=400)


def _histogram(
    values: np.ndarray, labels: np.ndarray | None, border: np.ndarray, title: str, noun: str
) -> alt.LayerChart:
    """Return outlines of the counts in 60 bins, one for each label where they are few, and dashed borders."""
    import altair as alt

    edges = np.histogram_bin_edges(np.concatenate([values, border]), BINS)
    has_names = labels is not None and len(np.unique(labels)) <= MOST_LABELS
    groups = labels if labels is not None and has_names else np.zeros(len(values), int)
    rows = []
    for label in np.unique(groups).tolist():
        counts, _ = np.histogram(values[groups == label], edges)
        heights = [0, *counts.tolist(), 0]  # the outline begins and ends at zero
        rows += [{"x": x, "count": n, "label": label} for x, n in zip([edges[0], *edges], heights)]
    color = _label_color(groups) if has_names else alt.value(SPLITS["validation"])
    x = alt.X("x:Q", title=title, scale=alt.Scale(zero=False))
    line = alt.Chart(values_of(rows)).mark_line(interpolate="step-after", strokeWidth=1.5)
    ends = alt.Chart(values_of([{"x": end} for end in sorted(set(border.tolist()))])).mark_rule(**DASHED).encode(x=x)
    lines = line.encode(x=x, y=alt.Y("count:Q", title=f"{noun}s"), color=color)
    return alt.layer(lines, ends).properties(width=400, height=400)


def _label_color(labels: np.ndarray | None) -> Any:
    import altair as alt

    if labels is None:
        return alt.value(SPLITS["validation"])
    names = np.unique(labels).tolist()
    if len(names) > MOST_LABELS:
        return alt.Color("label:Q", scale=alt.Scale(scheme="viridis"), legend=alt.Legend(title="label"))
    colors = alt.Scale(domain=names, range=LABELS) if len(names) <= len(LABELS) else alt.Scale(scheme="category20")
    return alt.Color("label:N", scale=colors, legend=alt.Legend(title="label", symbolOpacity=1, symbolSize=80))


def _plane(means: Float[np.ndarray, "n d"], level: str | None) -> tuple[np.ndarray, np.ndarray, tuple[str, str]]:
    """Return codes in at most two dimensions, the axes of these in latent space, and their names."""
    if means.shape[1] <= 2:
        return means, np.eye(means.shape[1]), ("z0", "z1") if level is None else (f"{level}[0]", f"{level}[1]")
    centered = np.pad(means - means.mean(0), ((0, max(0, 2 - len(means))), (0, 0)))
    _, scales, axes = np.linalg.svd(centered, full_matrices=False)
    shares = scales**2 / max((scales**2).sum(), 1e-30)
    names = [f"principal component {number + 1} ({shares[number]:.0%} of the variance)" for number in (0, 1)]
    return means @ axes[:2].T, axes[:2], (names[0], names[1])


def values_of(rows: Sequence[Row]) -> Any:
    return {"values": list(rows)}  # a plain dict: alt.InlineData would validate it row by row, a second for 10,000


def epoch_axis(rows: Sequence[Row]) -> alt.X:
    import altair as alt

    span = max(row["epoch"] for row in rows) - min(row["epoch"] for row in rows)
    axis = alt.Axis(tickCount=max(1, min(8, span)))  # no more ticks than epochs, so that none lies between two
    scale = alt.Scale(zero=False, nice=False, padding=5)  # so that no dot at an end is cut off
    return alt.X("epoch:Q", title="epoch", axis=axis, scale=scale)
