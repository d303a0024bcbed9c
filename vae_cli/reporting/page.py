"""Pages of one file that need no network: a template, the charts' specifications and the script that draws them."""

from __future__ import annotations

import base64
from contextlib import suppress
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_cli.reporting.charts import vegalite_version
from vae_cli.runs.reader import read_bytes
from vae_cli.system.atomic import write_text
from vae_cli.system.cache import cache_dir

if TYPE_CHECKING:
    from jinja2 import Environment

LARGEST_PICTURE = 8_000_000  # bytes


def render(template: str, **values: Any) -> str:
    """Return a page from a template of this package; every value is escaped."""
    environment = templates("vae_cli.reporting")
    environment.filters["number"] = format_number
    return environment.get_template(template).render(javascript=javascript, **values)


def templates(package: str) -> Environment:
    """Return the templates of a package, which escape every value and refuse one that is missing."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader(package),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


@cache
def javascript() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, bundled by vl-convert once for each user and version."""
    path = cache_dir() / f"vl-convert-{metadata.version('vl-convert-python')}.js"
    with suppress(OSError):
        if script := path.read_text(encoding="utf-8"):
            return script
    import vl_convert

    script = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vegalite_version())
    script = script.replace("</script", "<\\/script")
    with suppress(OSError):
        write_text(path, script)
    return script


def picture(path: Path) -> str | None:
    """Return a PNG as a data URL; None if the file is missing, too large or something else."""
    data = read_bytes(path, LARGEST_PICTURE)
    return f"data:image/png;base64,{base64.b64encode(data).decode()}" if data.startswith(b"\x89PNG") else None


def format_number(value: Any) -> str:
    """Return a number with a few digits; other values as text, None as an empty one."""
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


def format_duration(seconds: float) -> str:
    """Return seconds in a unit that suits them."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    if seconds < 6000:
        return f"{seconds / 60:.1f} min"
    return f"{seconds / 3600:.1f} h"
