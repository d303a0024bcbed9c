"""Curves and diagrams as pictures, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from vae_cli.reporting.page import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES = {
    "elbo": "ELBO, nats per image",
    "reconstruction": "E_q log p(x|z), nats per image",
    "kl": "KL, nats per image",
    "lr": "learning rate",
}
DPI = 110
MOST_NAMED = 20  # labels with a color and a name each

Record = Mapping[str, Any]


def curves(records: Sequence[Record]) -> Image.Image:
    """ELBO, reconstruction, KL and learning rate by epoch, one line for each split.

    Args:
        records: the lines of metrics.jsonl.
    """
    figure = _figure(9, 6)
    for axes, (name, title) in zip(figure.subplots(2, 2).flat, CURVES.items()):
        for split, color in COLORS.items():
            points = [(r["epoch"], r[name]) for r in records if r["split"] == split and r.get(name) is not None]
            if points:
                _line(axes, points, split, color)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel("epoch", fontsize=9)
        axes.xaxis.get_major_locator().set_params(integer=True)
        _plain(axes)
        if name == "elbo" and axes.lines:
            axes.legend(fontsize=9, frameon=False)
    return _drawn(figure)


def _line(axes: Axes, points: Sequence[tuple[int, float]], split: str, color: str) -> None:
    epochs, values = zip(*points)
    style = {"marker": "D", "linestyle": "none"} if split == "test" else {"marker": "." if len(points) < 30 else ""}
    axes.plot(epochs, values, label=split, color=color, **style)  # type: ignore[arg-type]


def kl_per_dim(values: Sequence[float]) -> Image.Image:
    """The mean KL of each latent dimension in nats, largest first."""
    order = np.argsort(-np.asarray(values))
    figure = _figure(max(4.5, min(12, 0.3 * len(values))), 3.2)
    axes = figure.subplots()
    axes.bar(range(len(values)), np.asarray(values)[order], color=COLORS["validation"])
    if len(values) <= 64:
        small = 9 if len(values) <= 32 else 6
        axes.set_xticks(range(len(values)), [str(d) for d in order], fontsize=small, rotation=0 if small == 9 else 90)
    axes.set_xlabel("latent dimension, largest first", fontsize=9)
    axes.set_title(f"KL per dimension, nats: {sum(values):.2f} in all", fontsize=10)
    _plain(axes)
    return _drawn(figure)


def latents(means: Float[Tensor, "n d"], labels: Int[Tensor, "n"] | None) -> Image.Image:
    """Codes in the plane, colored by label: as they are if there are two dimensions, else in their first two principal
    components; over one dimension their histogram."""
    figure = _figure(6.4, 5.4)
    axes = figure.subplots()
    points, names = _plane(means.cpu().double().numpy())
    area = min(36.0, max(3.0, 16_000 / len(means)))
    known = [None] if labels is None else sorted(int(y) for y in labels.unique())
    if points.shape[1] == 1:
        _histograms(axes, points[:, 0], labels, known)
    elif len(known) > MOST_NAMED:
        assert labels is not None
        drawn = axes.scatter(points[:, 0], points[:, 1], c=labels.cpu(), s=area, cmap="viridis", linewidths=0)
        figure.colorbar(drawn, label="label")
    else:
        for color, label in zip(_palette(len(known)), known):
            chosen = slice(None) if label is None or labels is None else (labels == label).cpu().numpy()
            axes.scatter(points[chosen, 0], points[chosen, 1], s=area, color=color, linewidths=0, label=str(label))
    if 1 < len(known) <= MOST_NAMED:
        shown = {"title": "label", "fontsize": 8, "markerscale": min(3.0, 6 / area**0.5), "frameon": False}
        axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), **shown)
    axes.set_xlabel(names[0], fontsize=9)
    axes.set_ylabel(names[1], fontsize=9)
    axes.set_title(f"means of q(z|x) of {len(means):,} test images", fontsize=10)
    _plain(axes)
    return _drawn(figure)


def _plane(means: np.ndarray) -> tuple[np.ndarray, tuple[str, str]]:
    if means.shape[1] == 1:
        return means, ("z0", "images")
    if means.shape[1] == 2:
        return means, ("z0", "z1")
    centered = np.pad(means - means.mean(0), ((0, max(0, 2 - len(means))), (0, 0)))
    _, scales, axes = np.linalg.svd(centered, full_matrices=False)
    shares = scales**2 / max((scales**2).sum(), 1e-30)
    names = [f"principal component {i + 1} ({shares[i]:.0%} of the variance)" for i in (0, 1)]
    return centered[: len(means)] @ axes[:2].T, (names[0], names[1])


def _histograms(axes: Axes, values: np.ndarray, labels: Tensor | None, known: Sequence[int | None]) -> None:
    edges = np.histogram_bin_edges(values, 60).tolist()
    if labels is None or len(known) > MOST_NAMED:
        axes.hist(values, edges, color=COLORS["validation"])
        return
    for color, label in zip(_palette(len(known)), known):
        chosen = labels.cpu().numpy() == label
        axes.hist(values[chosen], edges, histtype="step", color=color, label=str(label))


def _palette(count: int) -> list[Any]:
    import matplotlib

    return [matplotlib.colormaps["tab10" if count <= 10 else "tab20"](i) for i in range(max(1, count))]


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure

    return Figure((width, height), dpi=DPI, layout="constrained")


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)


def _drawn(figure: Figure) -> Image.Image:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
