"""Pages of one file that need no network: a template, the charts' specifications and the script that draws them."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from vae_cli.runs.reader import read_bytes
from vae_cli.system.atomic import atomic_write
from vae_cli.system.cache import cache_dir

COLORS = {"train": "#E69F00", "validation": "#0072B2", "test": "#009E73"}
SCALE = [  # of several runs, told apart by color-blind readers too, as far as that goes
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#8c6d31", "#666666"),
    *("#3b518b", "#b5a400", "#8c2d04", "#7fbc41"),
]
FEW = 30  # epochs that have a point each
EPOCHS = {
    "field": "epoch",
    "type": "quantitative",
    "axis": {"tickMinStep": 1, "title": "epoch"},
    "scale": {"zero": False, "nice": False},
}
LARGEST_PICTURE = 8_000_000  # bytes

Spec = dict[str, Any]


def render(template: str, **values: Any) -> str:
    """A page from a template of this package; every value is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("vae_cli.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template(template).render(javascript=javascript, **values)


@cache
def javascript() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script, bundled by vl-convert once for each user and version."""
    place = cache_dir() / f"vl-convert-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError):
        if script := place.read_text(encoding="utf-8"):
            return script
    import vl_convert

    version = vl_convert.get_vegalite_versions()[-1]
    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", version)
    script = script.replace("</script", "<\\/script")
    with suppress(OSError), atomic_write(place) as temporary:
        temporary.write_text(script, encoding="utf-8")
    return script


def picture(path: Path) -> str | None:
    """A PNG as a data address, or None if there is none that one would want in a page."""
    data = read_bytes(path, LARGEST_PICTURE)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(b"\x89PNG") else None


def number(value: Any) -> str:
    """A number as a person reads it."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    if not isinstance(value, float):
        return str(value)
    if value and (abs(value) < 1e-3 or abs(value) >= 1e7):
        return f"{value:.3g}"
    return f"{value:.4f}".rstrip("0").rstrip(".") if abs(value) < 1 else f"{value:,.2f}"


def duration(seconds: float) -> str:
    """Seconds as a person reads them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"


# Charts


def thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """The rows of so many epochs at most, evenly chosen, the first and the last among them."""
    epochs = sorted({row["epoch"] for row in rows})
    if len(epochs) <= most:
        return list(rows)
    places = (round(place * (len(epochs) - 1) / (most - 1)) for place in range(most))
    kept = {epochs[place] for place in places}
    return [row for row in rows if row["epoch"] in kept]


def lines(
    rows: Sequence[Mapping[str, Any]], title: str, series: str, colors: Mapping[str, str], from_zero: bool = False
) -> Spec:
    """A line for each series over epochs; pointing at an epoch shows every series' value there.

    Args:
        rows: dicts with `epoch`, `value` and the series' name under `series`.
        title: of the values.
        series: what tells the lines apart.
        colors: of every series, in their order.
        from_zero: the axis begins at zero.
    """
    names, few = list(colors), len({row["epoch"] for row in rows}) <= FEW
    scale = {"domain": names, "range": list(colors.values())}
    color = {"field": series, "type": "nominal", "scale": scale, "legend": {"orient": "top", "title": None}}
    y: Spec = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": from_zero}}
    y["axis"] = {"format": ",.6~g"}
    hover = {
        "name": "hover",
        "select": {"type": "point", "fields": ["epoch"], "nearest": True, "on": "pointermove", "clear": "pointerout"},
    }
    shown = [{"field": "epoch", "type": "quantitative"}]
    shown += [{"field": _field(name), "title": name, "type": "quantitative", "format": ",.6~g"} for name in names]
    rule = {
        "transform": [{"pivot": series, "value": "value", "groupby": ["epoch"]}],
        "mark": "rule",
        "encoding": {
            "opacity": {"condition": {"value": 0.4, "param": "hover", "empty": False}, "value": 0},
            "tooltip": shown,
        },
        "params": [hover],
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 36},
        "encoding": {
            "y": y,
            "color": color,
            "opacity": {
                "condition": [
                    {"value": 1, "param": "hover", "empty": False},
                    {"test": f"datum[{series!r}] == 'test'", "value": 1},
                ],
                "value": int(few),
            },
        },
    }
    layers: list[Spec] = [{"mark": {"type": "line", "clip": True}, "encoding": {"y": y, "color": color}}, rule, points]
    return _chart(title, rows, 260) | {"encoding": {"x": EPOCHS}, "layer": layers}


def overlaid(rows: Sequence[Mapping[str, Any]], title: str, runs: Sequence[str]) -> Spec:
    """A line for each run over epochs; the one that is pointed at stands out and is named.

    Args:
        rows: dicts with `epoch`, `value` and `run`.
        title: of the values.
        runs: their names, which give the colors.
    """
    y: Spec = {"field": "value", "type": "quantitative", "title": None, "scale": {"zero": False}}
    colors = [SCALE[place % len(SCALE)] for place in range(len(runs))]
    legend = {"orient": "bottom", "title": None, "columns": 1, "labelLimit": 300} if len(runs) <= len(SCALE) else None
    scale = {"domain": list(runs), "range": colors}
    color = {"field": "run", "type": "nominal", "scale": scale, "legend": legend}
    hover = {"name": "chosen", "select": {"type": "point", "fields": ["run"], "on": "pointerover", "nearest": True}}
    faint = {"condition": {"param": "chosen", "value": 1}, "value": 0.15}
    tooltip = [{"field": "run"}, {"field": "epoch"}, {"field": "value", "format": ",.6~g"}]
    drawn = {"mark": {"type": "line"}, "encoding": {"y": y, "color": color, "opacity": faint}}
    points = {
        "mark": {"type": "point", "filled": True, "size": 30},
        "encoding": {"y": y, "color": color, "opacity": faint, "tooltip": tooltip},
        "params": [hover],
    }
    height = 300 + (20 * len(runs) if legend else 0)
    return _chart(title, rows, height) | {"encoding": {"x": EPOCHS}, "layer": [drawn, points]}


def _field(name: str) -> str:
    """A field's name, none of whose characters lead inside."""
    return "".join(f"\\{char}" if char in ".[]'\"\\" else char for char in name)


def parallel(rows: Sequence[Mapping[str, Any]], order: Sequence[str], ends: Sequence[Mapping[str, Any]]) -> Spec:
    """Parallel coordinates: a line for each run through an axis for each setting, colored by the metric.

    Args:
        rows: dicts with `run`, `axis`, `place` in [0, 1], `shown` and `score` in [0, 1].
        order: the axes.
        ends: dicts with `axis`, `place` and `shown`: what to write at the axes.
    """
    x: Spec = {"field": "axis", "type": "nominal", "sort": list(order), "title": None, "scale": {"type": "point"}}
    x |= {"axis": {"labelAngle": 0, "orient": "top", "domain": False, "ticks": False, "labelLimit": 110}}
    y: Spec = {"field": "place", "type": "quantitative", "axis": None, "scale": {"domain": [-0.06, 1.06]}}
    color = {"field": "score", "type": "quantitative", "legend": None, "scale": {"scheme": "viridis", "domain": [0, 1]}}
    hover = {"name": "chosen", "select": {"type": "point", "fields": ["run"], "on": "pointerover", "nearest": True}}
    faint = {"condition": {"param": "chosen", "value": 1}, "value": 0.12}
    tooltip = [{"field": "run"}, {"field": "axis"}, {"field": "shown", "title": "value"}]
    lines_ = {
        "mark": {"type": "line", "strokeWidth": 2},
        "encoding": {"detail": {"field": "run"}, "color": color, "opacity": faint, "y": y},
    }
    points = {
        "mark": {"type": "point", "filled": True, "size": 60},
        "encoding": {"color": color, "opacity": faint, "y": y, "tooltip": tooltip},
        "params": [hover],
    }
    axes = {"mark": {"type": "rule", "color": "#999"}, "data": {"values": [{"axis": name} for name in order]}}
    written = {"type": "text", "align": "left", "dx": 7, "fontSize": 12, "limit": 110}
    halo, ink = {"stroke": "white", "strokeWidth": 4, "strokeJoin": "round"}, {"fill": "#333"}
    texts = [
        {
            "data": {"values": list(ends)},
            "mark": written | color_,
            "encoding": {"y": y, "text": {"field": "shown"}},
        }
        for color_ in (halo, ink)
    ]
    return _chart("", rows, 300) | {"encoding": {"x": x}, "layer": [axes, lines_, points, *texts]}


def _chart(title: str, rows: Sequence[Mapping[str, Any]], height: int) -> Spec:
    text = {"labelFontSize": 12, "titleFontSize": 12}
    return {
        "title": {"text": title, "anchor": "start", "fontSize": 14} if title else None,
        "data": {"values": list(rows)},
        "width": "container",
        "height": height,
        "autosize": {"type": "fit", "contains": "padding"},
        "padding": {"left": 8, "top": 5, "right": 12, "bottom": 5},
        "config": {
            "font": "system-ui, sans-serif",
            "axis": text | {"grid": True, "gridColor": "#eee"},
            "legend": text,
            "view": {"stroke": None},
        },
    }
