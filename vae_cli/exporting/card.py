"""The model card of a repository, written from the run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vae_cli import __version__
from vae_cli.build.options import changes, choice, groups
from vae_cli.build.parts import MODEL_GROUPS, SUPPORTS
from vae_cli.build.trained import Trained
from vae_cli.constraints import show
from vae_cli.errors import counted, printable
from vae_cli.exporting.weights import shareable
from vae_cli.runs.reader import BEST, CHECKPOINTS, LAST, Run, directory_of, finite, mapping

NUMBERS = {  # of vae-evaluate and of a run's end, with what they are
    "log_likelihood": "estimate of log p(x), nats per example",
    "elbo": "evidence lower bound, nats per example",
    "reconstruction": "E_q log p(x\\|z), nats per example",
    "kl": "KL(q(z\\|x) ‖ p(z)), nats per example",
    "bits_per_dim": "bits per dimension",
    "mse": "squared error of reconstructions, per pixel on [0, 1]",
    "psnr": "peak signal-to-noise ratio of reconstructions, decibels",
    "active_units": "latent dimensions in use",
    "mmd": "squared gap between codes and prior",
    "knn_accuracy": "accuracy of the five nearest codes",
    "linear_probe_accuracy": "accuracy of a linear classifier of codes",
}


def run_of(checkpoint: Path) -> Run | None:
    """Return the run whose own checkpoint a file is; None of any other file, even of one that lies in a run."""
    is_own = checkpoint.absolute().parent.name == CHECKPOINTS and checkpoint.name in (BEST, LAST)
    return Run(directory_of(checkpoint), "run") if is_own else None


def card(repo: str, license: str | None, trained: Trained, run: Run | None, samples: str) -> str:
    """Return the text of README.md.

    Args:
        repo: owner/name.
        license: its short name, for the YAML head.
        trained: the model.
        run: whose own checkpoint it is, perhaps without a file; None of any other model.
        samples: the name of the picture of samples.
    """
    sections = [
        _head(license),
        f"# {repo.partition('/')[2]}",
        _summary(trained),
        f"![samples from the prior]({samples})",
        "Samples from the prior, the image that p(x|z) stands for: `vae-sample checkpoint=hf://" + repo + " seed=0`.",
        "## Training data",
        _data(trained, run),
        "## Numbers",
        _numbers(trained, run),
        "## How to load it",
        _loading(repo),
        "## Settings",
        _settings(trained),
    ]
    if license is not None:
        sections += ["## Licence", license]
    return "\n\n".join(sections) + "\n"


def _head(license: str | None) -> str:
    """Return the YAML that the Hub reads."""
    lines = [] if license is None else [f"license: {license}"]
    lines += ["library_name: vae_cli", "pipeline_tag: unconditional-image-generation"]
    return "\n".join(["---", *lines, "tags:", "- vae", "- variational-autoencoder", "---"])


def _summary(trained: Trained) -> str:
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    kind = "A conditional variational autoencoder" if trained.model.classes else "A variational autoencoder"
    size = "x".join(map(str, trained.facts.shape))
    levels = trained.model.level_sizes
    sizes = f" in {len(levels)} levels" if len(levels) > 1 else ""
    return (
        f"{kind} of {size} {trained.facts.noun}s, trained on `{trained.facts.name}` with vae_cli {__version__}. "
        f"It has {trained.model.latent_dim} latent dimensions{sizes} and {parameters:,} parameters."
    )


def _data(trained: Trained, run: Run | None) -> str:
    facts, settings = trained.facts, trained.settings
    sizes = mapping(run.summary.get("data")) if run is not None else {}
    binarize = settings["dataset"].get("binarize", "none")
    rows = [
        f"- data set: `{facts.name}`, {SUPPORTS[facts.support]}, binarize={binarize}",
        f"- training {facts.noun}s: {facts.size:,}, digest `{facts.digest}`",
    ]
    held_out = [f"{sizes[name]:,} {name}" for name in ("validation", "test") if isinstance(sizes.get(name), int)]
    rows += [f"- held out: {', '.join(held_out)} {facts.noun}s"] if held_out else []
    if trained.model.classes:
        names = ", ".join(map(printable, facts.class_names)) or f"0 to {trained.model.classes - 1}"
        rows.append(f"- labels: {names}")
    rows.append(f"- training: {trained.step:,} steps, seed {settings['seed']}, precision {settings['precision']}")
    return "\n".join(rows)


def _numbers(trained: Trained, run: Run | None) -> str:
    if run is None:
        return "They are not known: the uploaded file is not a checkpoint that a run wrote itself."
    if run.summary.get("step") != trained.step:
        return "They are not known: the file was exported without the run that it comes from."
    if _is_of_test(run.evaluation, trained):
        return _evaluated(run.evaluation)
    test, number = mapping(run.summary.get("test")), mapping(run.summary.get("data")).get("test")
    images = counted(number, run.noun) if isinstance(number, int) else f"all {run.noun}s"
    rows = [_row(name, finite(test.get(name)), None) for name in NUMBERS if finite(test.get(name)) is not None]
    draws = trained.settings["mc_samples"]
    how = (
        f"Measured at the end of the training on the test split ({images}), with {counted(draws, 'draw')} of z per "
        f"{run.noun}. Standard errors are not known: `vae-evaluate` measures them."
    )
    return _table(rows) + "\n\n" + how if rows else "None were measured."


def _is_of_test(evaluation: Mapping[str, Any], trained: Trained) -> bool:
    """Return whether evaluation.json scores the run's own checkpoint on the test split of the data of its training."""
    scored = Path(str(evaluation.get("checkpoint")))  # as it was typed; perhaps another file of the same step
    is_own = scored.name in (BEST, LAST) and scored.parent.name in (CHECKPOINTS, "")
    is_of_test = evaluation.get("split") == "test" and evaluation.get("path") is None
    return is_own and is_of_test and evaluation.get("step") == trained.step


def _evaluated(evaluation: Mapping[str, Any]) -> str:
    """Return the numbers of evaluation.json and how they were measured."""
    numbers = {name: mapping(evaluation.get(name)) for name in NUMBERS}
    rows = [
        _row(name, finite(number.get("value")), finite(number.get("stderr")))
        for name, number in numbers.items()
        if finite(number.get("value")) is not None
    ]
    images, noun = numbers["elbo"].get("n"), evaluation.get("noun", "image")
    if evaluation.get("limit") is None:
        where = f"the test split ({images} {noun}s)"
    else:
        where = f"the first {images} {noun}s of the test split (limit={evaluation['limit']})"
    how = (
        f"Measured by `vae-evaluate` on {where}, with "
        f"{evaluation.get('num_importance_samples')} draws of z per {noun} and seed {evaluation.get('seed')}. "
        f"`log_likelihood` is the importance-weighted estimate. ± is the standard error over the {noun}s."
    )
    return _table(rows) + "\n\n" + how


def _row(name: str, value: float | None, error: float | None) -> str:
    assert value is not None
    shown = f"{value:.4g}" if abs(value) < 10 else f"{value:,.2f}"
    return f"| `{name}` | {shown}" + ("" if error is None else f" ± {error:.2g}") + f" | {NUMBERS[name]} |"


def _table(rows: list[str]) -> str:
    return "\n".join(["| number | value | meaning |", "|---|---|---|", *rows])


def _loading(repo: str) -> str:
    return f"""```
pip install 'vae-cli[hub]'
vae-sample checkpoint=hf://{repo} n=64 seed=0
vae-evaluate checkpoint=hf://{repo}
```

```python
import vae_cli

model = vae_cli.load("hf://{repo}")
images = model.sample(16, seed=0)
```

`hf://{repo}@REVISION` pins a commit or tag. `model.safetensors` holds the weights under the names of the model's
state dict, and the settings as JSON in its metadata; it runs no code when it is opened."""


def _settings(trained: Trained) -> str:
    """Return the parts of the model, and what differs from the defaults."""
    settings, shown = shareable(trained.settings), ("dataset", *MODEL_GROUPS, "objective", "optimizer")
    parts = [f"{group}={choice(group, settings[group])}" for group in shown if group in settings]
    others = [f"{key}={show(value)}" for key, value in changes(settings).items() if key not in groups("train")]
    return f"```\n{' '.join([*parts, *others])}\n```\n\n`config.yaml` has all of them."
