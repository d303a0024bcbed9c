"""`report.html`: one run on one page, made of the files in its directory."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vae_cli.reporting import grids, page, plots, tables
from vae_cli.reporting.page import COLORS, Spec
from vae_cli.runs.reader import TRAVERSED_DIMENSIONS, Run, finite, mapping, read
from vae_cli.system.atomic import atomic_write

NAME = "report.html"
CURVES = {
    "elbo": "ELBO, nats per image",
    "bound": "bound, nats per image",
    "reconstruction": "E_q log p(x|z), nats per image",
    "kl": "KL, nats per image",
    "loss": "loss",
    "lr": "learning rate",
}
PICTURES = {
    "samples": "generated images: the mean of p(x|z) for z from the prior",
    "reconstructions": "test images above, their reconstructions below",
    "traversals": "along {} over three standard deviations of the prior to either side, the dimension whose posterior "
    "mean varies most first",
    "latents": "where the test images lie in latent space",
    "kl_per_dim": "what each latent dimension tells of an image",
}
MOST_POINTS = 500  # of a curve
WIDE_FROM = 20  # latent dimensions on, the bars of their KL want room


def write(directory: Path, has_ended: bool = False) -> Path:
    """Write a run's page beside the files that it shows, and its curves.png; return the page's path.

    Args:
        directory: the run directory.
        has_ended: its training is over, although this process, which trained it, still holds its lock.

    Raises:
        OSError: if one of the two cannot be written.
    """
    run, output = Run(directory.resolve(), directory.resolve().name, has_ended), directory / NAME
    if run.metrics:
        grids.save(plots.curves(run.metrics), directory / "curves.png")
    with atomic_write(output) as temporary:
        temporary.write_text(render(run), encoding="utf-8")
    return output


def render(run: Run) -> str:
    """The page of a run."""
    data = mapping(run.summary.get("data"))
    name = str(data.get("name") or mapping(run.settings.get("dataset")).get("_target_", run.name))
    latent_dim = run.settings.get("latent_dim")
    return page.render(
        "report.html",
        title=f"{name}, {latent_dim} latent dimensions" if latent_dim else name,
        subtitle=str(run.path.absolute()),
        run=run,
        cards=_cards(run),
        bounds=_bounds(run),
        evaluated=_evaluated(run),
        charts=_charts(run.metrics),
        pictures=_pictures(run),
        facts=_facts(run, data),
        config=read(run.path / "config.yaml"),
        next=_next(run),
    )


def _cards(run: Run) -> list[dict[str, str]]:
    """What one wants to know first."""
    test, cards = mapping(run.summary.get("test")), []
    likelihood = run.number("log_likelihood")
    if likelihood is not None:
        name = f"log-likelihood of {page.number(run.evaluated_images)} test images, nats each"
        cards.append({"name": name, "value": page.number(likelihood)})
    for name, title in (("elbo", "test ELBO, nats per image"), ("kl", "test KL, nats per image")):
        if finite(test.get(name)) is not None:
            cards.append({"name": title, "value": page.number(float(test[name]))})
    if run.epochs is not None:
        wanted = run.settings.get("epochs")
        of = f" of {wanted}" if wanted not in (None, run.epochs) else ""
        cards.append({"name": "epochs", "value": f"{run.epochs}{of}"})
    seconds = run.number("seconds")
    if seconds is not None:
        cards.append({"name": "time", "value": page.duration(seconds)})
    if run.speed is not None:
        cards.append({"name": "training images a second", "value": f"{run.speed:,.0f}"})
    return cards


def _bounds(run: Run) -> list[dict[str, Any]]:
    """The numbers of the splits: of training the last epoch's, of validation the best one's."""
    train = [line for line in run.metrics if line["split"] == "train"]
    found = {
        "training": train[-1] if train else {},
        "validation": mapping(run.summary.get("validation")),
        "test": mapping(run.summary.get("test")),
    }
    known = [values for values in found.values() if values]
    names = [name for name in ("elbo", "reconstruction", "kl", "bound") if any(name in values for values in known)]
    if all(values.get("bound") == values.get("elbo") for values in known):
        names = [name for name in names if name != "bound"]
    return [
        {"split": split, "names": names, "numbers": [_decimal(values.get(name)) for name in names]}
        for split, values in found.items()
        if values
    ]


def _decimal(value: Any) -> float | None:
    found = finite(value)
    return None if found is None else float(found)


def _evaluated(run: Run) -> dict[str, Any] | None:
    """What vae-evaluate found, if its file is one of its own."""
    try:
        return {"title": tables.title(run.evaluation), "rows": list(tables.rows(run.evaluation))}
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _charts(metrics: Sequence[Mapping[str, Any]]) -> dict[str, Spec]:
    """A chart for each quantity that varies, by the name of its place in the page."""
    charts = {}
    for name, title in CURVES.items():
        if name == "bound" and all(line.get("bound") == line.get("elbo") for line in metrics):
            continue
        rows = [
            {"epoch": line["epoch"], "split": line["split"], "value": value}
            for line in metrics
            if line["split"] in COLORS and (value := finite(line.get(name))) is not None
        ]
        splits = {split: color for split, color in COLORS.items() if any(row["split"] == split for row in rows)}
        if rows:
            charts[f"chart-{name}"] = page.lines(_thinned(rows), title, "split", splits, name == "lr")
    return charts


def _thinned(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A curve's points, and the test split's one."""
    test = [row for row in rows if row["split"] == "test"]
    return page.thinned([row for row in rows if row["split"] != "test"], MOST_POINTS) + test


def _pictures(run: Run) -> list[dict[str, Any]]:
    label = "; label 0" if run.settings.get("conditional") else ""
    dimensions = run.settings.get("latent_dim")
    many = isinstance(dimensions, int) and dimensions > TRAVERSED_DIMENSIONS
    along = f"{TRAVERSED_DIMENSIONS} of the {dimensions} latent dimensions" if many else "each latent dimension"
    captions = PICTURES | {"traversals": PICTURES["traversals"].format(along) + label}
    wide = {"traversals"} | ({"kl_per_dim"} if isinstance(dimensions, int) and dimensions > WIDE_FROM else set())
    found = {name: page.picture(run.path / f"{name}.png") for name in PICTURES}
    return [{"data": data, "caption": captions[name], "wide": name in wide} for name, data in found.items() if data]


def _facts(run: Run, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained on what, in rows; what is not known is left out."""
    sizes = [f"{page.number(data[split])} {split}" for split in ("train", "validation", "test") if data.get(split)]
    shape = data.get("shape") if isinstance(data.get("shape"), list) else []
    classes = {key: value for key, value in run.flat_settings().items() if "." not in key and key in _PARTS}
    named = {
        "data": ", ".join(filter(None, [str(data.get("name") or ""), "×".join(map(str, shape or ())), *sizes])),
        "kind of data": str(data.get("support") or ""),
        "parts": ", ".join(f"{key} {value}" for key, value in classes.items()),
        "parameters": page.number(run.summary.get("parameters")),
        "best epoch": page.number(run.summary.get("best_epoch")),
        "device": str(run.summary.get("device") or ""),
        "versions": ", ".join(f"{key} {value}" for key, value in mapping(run.summary.get("versions")).items()),
        "started": str(run.summary.get("started") or ""),
    }
    return [(name, text) for name, text in named.items() if text]


_PARTS = ("encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "scheduler")


def _next(run: Run) -> list[str]:
    """Commands that take the run further."""
    place = shlex.quote(str(run.path.absolute()))
    if run.status == "completed":
        more = 2 * (run.epochs or 1)
        first = f"vae-train resume={place} epochs={more}"
    else:
        first = f"vae-train resume={place}"
    return [first, f"vae-evaluate checkpoint={place}", f"vae-sample checkpoint={place}", f"vae-compare {place} …"]
