"""`report.html`: one run on one page, made of the files in its directory."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_cli.errors import counted, shortened
from vae_cli.reporting import charts, factor_charts, generation_table, grids, level_charts, page, tables, unlikely_rows
from vae_cli.reporting.comparison import named_settings
from vae_cli.runs.reader import TEST_METRICS, Run, finite, mapping, read
from vae_cli.system.atomic import write_png, write_text

NAME = "report.html"
PICTURES = {  # captions
    "samples": "generated images: what p(x|z) expects for z from the prior",
    "reconstructions": "test images above, their reconstructions below",
    "levels": "three draws from the prior, each beside three more that keep the levels named at the left of their row "
    "and draw the others anew",
    "traversals": "along {along} over three standard deviations of the prior to either side, the dimension whose "
    "posterior mean varies most first",
    "latents": "where the test images lie in latent space; a dashed line, if there is one, is at two standard "
    "deviations of the prior, which codes should fill",
    "kl_per_dim": "the information about an image in each latent dimension",
    "kl_per_level": "the information about a test example in each level, given the levels above: near 0 it is unused",
}
OF_VALUES = {  # captions where examples are no images
    "samples": "{rows} drawn from the model beside the data",
    "correlations": "how the columns of the data go together, and those of drawn rows",
    "reconstructions": "the part of each column's variance that reconstructions of test data do not explain: 100 % "
    "where the codes hold nothing of a column",
    "latents": "where the test data lie in latent space; a dashed line, if there is one, is at two standard deviations "
    "of the prior, which codes should fill",
    "kl_per_dim": "the information about an example in each latent dimension",
}
OF_TOP = {  # captions of a hierarchy with its top level in them
    "traversals": "along {along} of {top}, the top level, over three standard deviations of its prior to either side; "
    "the levels below follow at the prior's mean",
    "latents": "where the test images lie in {top}, the top level; a dashed line, if there is one, is at two standard "
    "deviations of its prior",
}
WIDE_FROM = 20  # latent dimensions, above which the bars of their KL take two columns
PARTS = ("model", "encoder", "decoder", "posterior", "prior", "likelihood", "objective", "optimizer", "scheduler")


def write(directory: Path, has_ended: bool = False) -> Path:
    """Write a run's report.html, curves.png and, of disentanglement scores, factors.png; return the page's path.

    Args:
        directory: the run directory.
        has_ended: its training is over, although this process, which trained it, still holds its lock.

    Raises:
        OSError: if one of them cannot be written.
    """
    run, output = Run(directory.resolve(), directory.resolve().name, has_ended), directory / NAME
    curves = _curves(run)
    if curves:
        write_png(directory / "curves.png", charts.curves_picture(curves))
    factors = _factors(run)
    if factors:
        write_png(directory / "factors.png", charts.to_png(factors["chart"]))
    write_text(output, _render(run, curves, factors))
    return output


def _factors(run: Run) -> dict[str, Any]:
    """Return the disentanglement scores of the run: rows, variants by name and a chart; empty without any."""
    scores = mapping(run.evaluation.get("disentanglement"))
    try:
        rows, variant = list(tables.factor_rows(scores)), dict(scores["variant"])
        remark = tables.factor_remark(scores)
        return {"rows": rows, "variant": variant, "remark": remark, "chart": factor_charts.of_scores(scores)}
    except (KeyError, TypeError, ValueError, AttributeError):  # none, or not those of vae-evaluate
        return {}


def _render(run: Run, curves: dict[str, Any], factors: dict[str, Any]) -> str:
    data = mapping(run.summary.get("data"))
    dataset = mapping(run.settings.get("dataset"))
    name = str(data.get("name") or dataset.get("_target_", run.name))
    if dataset.get("path"):
        name = Path(str(dataset["path"])).name
    levels = _levels(run)
    size = f"{sum(levels.values())} latent dimensions" + (f" in {len(levels)} levels" if len(levels) > 1 else "")
    try:
        evaluated = {"title": tables.title(run.evaluation), "rows": list(tables.rows(run.evaluation))}
    except (KeyError, TypeError, ValueError, AttributeError):  # no evaluation.json, or not one of vae-evaluate's
        evaluated = None
    drawn = {f"chart-{quantity}": charts.to_spec(chart) for quantity, chart in curves.items()}
    return page.render(
        "report.html",
        title=f"{name}, {size}" if levels else name,
        subtitle=str(run.path.absolute()),
        run=run,
        cards=_cards(run),
        bounds=_bounds(run),
        evaluated=evaluated,
        generation=generation_table.from_evaluation(run.evaluation),
        curves=list(drawn),
        charts=drawn | ({"chart-factors": charts.to_spec(factors["chart"])} if factors else {}),
        factors=factors,
        pictures=_pictures(run),
        unlikely=unlikely_rows.stored(run.path),
        facts=_facts(run, data),
        config=read(run.path / "config.yaml"),
        next=_next_commands(run),
    )


def _cards(run: Run) -> list[dict[str, str]]:
    """Return the numbers at the top of the page."""
    test = mapping(run.summary.get("test"))
    cards = {}
    likelihood, seconds = run.number("log_likelihood"), run.number("seconds")
    draws = finite(run.evaluation.get("num_importance_samples"))
    if likelihood is not None and draws is not None and draws > 1:  # of one draw it is an estimate of the ELBO
        count = page.format_number(run.evaluated_examples)
        name = f"log-likelihood of {count} test {run.noun}s by {draws:,.0f} draws, nats each"
        cards[name] = page.format_number(likelihood)
    for key, name in (("elbo", "test ELBO, nats per example"), ("kl", "test KL, nats per example")):
        if finite(test.get(key)) is not None:
            cards[name] = page.format_number(float(test[key]))
    if run.epochs is not None:
        planned = run.settings.get("epochs")
        cards["epochs"] = f"{run.epochs}" if planned in (None, run.epochs) else f"{run.epochs} of {planned}"
    if seconds is not None:
        cards["time"] = page.format_duration(seconds)
    if run.speed is not None:
        cards[f"training {run.noun}s a second"] = f"{run.speed:,.0f}"
    return [{"name": name, "value": value} for name, value in cards.items()]


def _bounds(run: Run) -> list[dict[str, Any]]:
    """Return a row of numbers for each split: the last epoch's for training, the best one's for validation."""
    train = [line for line in run.metrics if line["split"] == "train"]
    splits = {
        "training": train[-1] if train else {},
        "validation": mapping(run.summary.get("validation")),
        "test": mapping(run.summary.get("test")),
    }
    splits = {split: values for split, values in splits.items() if values}
    names = [name for name in TEST_METRICS if any(name in values for values in splits.values())]
    if all(values.get("bound") == values.get("elbo") for values in splits.values()):
        names = [name for name in names if name != "bound"]
    rows = []
    for split, values in splits.items():
        numbers = [finite(values.get(name)) for name in names]
        floats = [None if number is None else float(number) for number in numbers]
        rows.append({"split": split, "names": names, "numbers": floats})
    return rows


def _curves(run: Run) -> dict[str, Any]:
    """Return the charts of a run's numbers over its epochs; behind the KL that of each level of a hierarchy."""
    curves: dict[str, Any] = {}
    levels = list(_levels(run))
    for name, chart in charts.curves(run.metrics).items():
        curves[name] = chart
        if name == "kl" and len(levels) > 1 and (of_levels := level_charts.kl_over_epochs(run.metrics, levels)):
            curves["kl_levels"] = of_levels
    return curves


def _levels(run: Run) -> dict[str, int]:
    """Return the dimensions of each level of latent variables, as the summary has them."""
    levels = mapping(run.summary.get("levels"))
    return {name: size for name, size in levels.items() if isinstance(size, int)}


def _pictures(run: Run) -> list[dict[str, Any]]:
    levels = _levels(run)
    top, latent_dim = ([*levels.items()] or [("z", 0)])[-1]  # the dimensions that the pictures show
    along, each = "each latent dimension", "latent dimensions"
    if len(levels) > 1:
        along, each = "each dimension", "dimensions"
    if latent_dim > grids.TRAVERSED_DIMENSIONS:
        along = f"{grids.TRAVERSED_DIMENSIONS} of the {latent_dim} {each}"
    shape = mapping(run.summary.get("data")).get("shape")
    captions = PICTURES | (OF_TOP if len(levels) > 1 else {})
    rows = "sequences" if isinstance(shape, list) and len(shape) == 2 else "rows"
    if isinstance(shape, list) and len(shape) < 3:
        captions = {**OF_VALUES, **{name: text for name, text in captions.items() if name not in OF_VALUES}}
    if rows == "sequences":
        captions["reconstructions"] = "test data above, their reconstructions below"
    captions = {name: caption.format(along=along, top=top, rows=rows) for name, caption in captions.items()}
    for name in ("levels", "traversals"):
        captions[name] += "; label 0" if run.settings.get("conditional") else ""
    wide = (
        {"traversals", "levels", "correlations"}
        | ({"samples"} if "correlations" in captions else set())
        | ({"kl_per_dim"} if latent_dim > WIDE_FROM else set())
    )
    pictures = []
    for name, caption in captions.items():
        if data := page.picture(run.path / f"{name}.png"):
            pictures.append({"data": data, "caption": caption, "wide": name in wide})
    return pictures


def _facts(run: Run, data: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what was trained on what, in rows of name and text."""
    sizes = [f"{page.format_number(data[split])} {split}" for split in charts.SPLITS if data.get(split)]
    shape = data["shape"] if isinstance(data.get("shape"), list) else []
    settings = named_settings(run)
    columns = mapping(data.get("columns"))
    size = counted(sum(map(len, columns.values())), "column") if columns else "×".join(map(str, shape))
    facts = {
        "data": ", ".join(filter(None, [str(data.get("name") or ""), size, *sizes])),
        "kind of data": str(data.get("support") or ""),
        "file": str(mapping(run.settings.get("dataset")).get("path") or ""),
        **{f"{kind} columns": shortened(names) for kind, names in columns.items()},
        "label": str(mapping(run.settings.get("dataset")).get("label") or ""),
        "parts": ", ".join(f"{key} {settings[key]}" for key in PARTS if key in settings),
        "parameters": page.format_number(run.summary.get("parameters")),
        "best epoch": page.format_number(run.summary.get("best_epoch")),
        "device": str(run.summary.get("device") or ""),
        "versions": ", ".join(f"{key} {value}" for key, value in mapping(run.summary.get("versions")).items()),
        "started": str(run.summary.get("started") or ""),
    }
    return [(name, text) for name, text in facts.items() if text]


def _next_commands(run: Run) -> list[str]:
    path = shlex.quote(str(run.path.absolute()))
    further = f" epochs={2 * (run.epochs or 1)}" if run.status == "completed" else ""
    return [
        f"vae-train resume={path}{further}",
        f"vae-evaluate checkpoint={path}",
        f"vae-sample checkpoint={path}",
        f"vae-compare {path} …",
    ]
