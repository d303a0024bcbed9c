"""The page itself: one file that loads nothing else."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

from vae_cli.errors import counted
from vae_cli.exploring.axes import Axis
from vae_cli.exploring.explorer import DIGITS, Explorer
from vae_cli.reporting.page import templates
from vae_cli.system.paths import expand

STEPS = 9  # images between two codes
DIMENSIONS = 12  # sliders that are seen at first
PLAIN_NAME = re.compile(r"[A-Za-z]\w*|0|[1-9][0-9]*", re.ASCII)  # of a label that needs no quotes
WORDS = ("all", "null", "true", "false", "nan", "inf")  # that a command line reads as something else


def policy(nonce: str) -> str:
    """Return the content security policy of a page whose script and style have a nonce."""
    own = f"script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src data:; connect-src 'self'"
    return f"default-src 'none'; {own}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def render(explorer: Explorer, source: str, nonce: str, reason: str = "") -> str:
    """Return the page.

    Args:
        explorer: the model.
        source: the checkpoint, as a person names it.
        nonce: of this answer.
        reason: why there are no test images.
    """
    facts, described = explorer.facts, "x".join(map(str, explorer.facts.shape))
    dim, classes = len(explorer.start), explorer.model.classes
    subtitle = [facts.name, described, counted(dim, "latent dimension")]
    return (
        templates("vae_cli.exploring")
        .get_template("explore.html")
        .render(
            title=run_name(source),
            subtitle=" · ".join([*subtitle, *([f"{classes} labels"] if classes else [])]),
            facts=page_facts(explorer, source),
            nonce=nonce,
            reason=reason,
        )
    )


def run_name(source: str) -> str:
    """Return the name of a run from its directory or a file in it; an address as it is."""
    if "://" in source:
        return source
    path = expand(source).absolute().resolve()
    return path.parents[1].name if path.parent.name == "checkpoints" else path.name


def page_facts(explorer: Explorer, source: str) -> dict[str, Any]:
    """Return what the page's script has to know."""
    test, names, classes = explorer.test, explorer.facts.class_names, explorer.model.classes
    return {
        "start": [round(value, DIGITS) for value in explorer.start.tolist()],
        "digits": DIGITS,
        "side": max(explorer.facts.shape[1:]),
        "labels": explorer.labels,
        "labelWords": [label_setting(label, names) for label in range(classes)],
        "classNames": list(names),
        "tests": 0 if test is None else len(test.split),
        "axes": [_axis(axis) for axis in explorer.axes],
        "sliders": DIMENSIONS,
        "steps": STEPS,
        "command": f"vae-sample {shlex.quote(f'checkpoint={source}')}",
        "source": source,
    }


def _axis(axis: Axis) -> dict[str, Any]:
    """Return an axis as the page has it: of a dimension its number alone, not its direction."""
    ends = {"low": axis.low, "high": axis.high, "start": axis.start}
    facts = {"name": axis.name, "title": axis.title, **{key: round(value, DIGITS) for key, value in ends.items()}}
    if axis.name.startswith("z"):
        return facts | {"dimension": int(axis.name[1:])}
    return facts | {"direction": axis.direction.tolist(), "origin": axis.origin.tolist()}


def label_setting(label: int, names: Sequence[str]) -> str:
    """Return the setting of a label for a shell: its name where that is plain, else its number if no other has that
    for a name, else its name in quotes."""
    name = names[label] if label < len(names) else str(label)
    if PLAIN_NAME.fullmatch(name) and name.lower() not in WORDS:
        return f"label={name}"
    if str(label) not in names:
        return f"label={label}"
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return shlex.quote(f"label='{escaped}'")
