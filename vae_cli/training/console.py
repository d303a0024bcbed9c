"""What a training tells on the terminal."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import torch
from tqdm import tqdm

from vae_cli import __version__
from vae_cli.build import options, parts
from vae_cli.constraints import show
from vae_cli.data import Data, DataFacts
from vae_cli.errors import counted
from vae_cli.runs.config_file import to_yaml
from vae_cli.runs.directory import RunDirectory, log
from vae_cli.training.state import TrainingState

RECONSTRUCTIONS = 32  # in a picture
CHARTED = 2000  # test examples that are no images
MOST_NAMED = 1000  # columns
ROWS = 20  # of epochs below each row of titles
NARROWEST = 7  # characters of a number
SHOWN = {  # settings that have lines of their own
    *("dataset", "model", "encoder", "decoder", "posterior", "prior", "likelihood", "objective"),
    *("mc_samples", "conditional", "batch_size", "epochs", "resume"),
}


def announce(state: TrainingState, data: Data, output: RunDirectory, dropped: list[str]) -> None:
    """Say what is trained on what, and where."""
    facts, settings = data.facts, state.config
    counts = [f"{len(data.train):,} train"]
    counts += [f"{len(data.validation):,} validation"] if data.validation else ["no validation: the last weights count"]
    parameters = sum(p.numel() for p in state.parameters)
    log.info("run         %s", output.path)
    log.info("data        %s, %s, %s", facts.name, _size(facts), _support(facts))
    log.info("%-12s%s, %s test", f"{facts.noun}s", ", ".join(counts), f"{len(data.test):,}")
    for note in data.notes:
        log.info("note        %s", note)
    changes = options.changes(settings)
    networks = {g: options.choice(g, settings[g]) for g in ("encoder", "decoder") if g in settings}
    chosen = {group: changes[group] for group in ("model", "posterior", "prior") if group in changes}
    log.info("model       %s", ", ".join(f"{group}={name}" for group, name in (networks | chosen).items()))
    if len(levels := state.model.level_sizes) > 1:
        sizes = ", ".join(f"{name} {size}" for name, size in levels.items())
        log.info("levels      %s dimensions, from the data up", sizes)
    if classes := state.model.classes:
        log.info("condition   q(z|x, y) and p(x|z, y), y one of %d labels", classes)
        seen = 0 if data.train.labels is None else len(data.train.labels.unique())
        if seen < classes:
            log.info(
                "note        no training %s has %d of those labels: nothing is learned of them",
                facts.noun,
                classes - seen,
            )
    kind = "probabilities" if state.model.likelihood.discrete else "a density"
    log.info("likelihood  %s (%s)", options.choice("likelihood", settings["likelihood"]), kind)
    name, draws = options.choice("objective", settings["objective"]), settings["mc_samples"]
    log.info("objective   %s, %d draw%s for each %s", name, draws, "s" if draws > 1 else "", facts.noun)
    log.info(
        "training    %s parameters on %s, %s epochs of %s steps, %s %ss a step",
        f"{parameters:,}",
        state.device,
        f"{settings['epochs']:,}",
        f"{len(state.batches):,}",
        f"{state.batches.batch_size:,}",
        facts.noun,
    )
    if others := [f"{key}={show(value)}" for key, value in changes.items() if key not in SHOWN]:
        log.info("settings    %s", ", ".join(others))
    if text := state.model.prior.warning(len(data.train), facts.noun):
        log.warning("%s", text)
    if state.rank.world_size > 1:
        log.info("processes   %s", _division(state))
    if dropped:
        log.info("dropped     %s: not taken by the class that was chosen", ", ".join(dropped))
    log.debug("config\n%s", to_yaml(settings))


def _size(facts: DataFacts) -> str:
    """The size of an example: of a table's row in columns."""
    columns, size = len(facts.columns), "×".join(map(str, facts.shape))
    if not columns:
        return size
    return counted(columns, "column") + (f" ({size} values)" if columns != facts.shape[0] else "")


def _support(facts: DataFacts) -> str:
    return "binary values" if facts.support == "binary" and not facts.is_image else parts.SUPPORTS[facts.support]


def _division(state: TrainingState) -> str:
    """How a batch is divided among the processes."""
    count, images = state.rank.world_size, state.batches.batch_size
    each = f"{images // count}" if images % count == 0 else f"{images // count} to {state.batches.largest}"
    return f"{count} × {each} {state.facts.noun}s = batches of {images}"


def summary_facts(state: TrainingState, data: Data) -> dict[str, Any]:
    """What the summary says of a training before it has any numbers."""
    facts = data.facts
    sizes = {"train": len(data.train), "validation": len(data.validation or ()), "test": len(data.test)}
    about = {
        "name": facts.name,
        "shape": list(facts.shape),
        "support": facts.support,
        "noun": facts.noun,
        "digest": facts.digest,
    }
    kind = torch.cuda.get_device_name(state.device) if state.device.type == "cuda" else str(state.device)
    return {
        "data": about | sizes | _columns(facts),
        "parameters": sum(p.numel() for p in state.parameters),
        "levels": state.model.level_sizes,
        "device": kind,
        "started": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        **({"processes": state.rank.world_size} if state.rank.world_size > 1 else {}),
        "versions": {"vae_cli": __version__, "torch": str(torch.__version__)},
    }


def _columns(facts: DataFacts) -> dict[str, Any]:
    """The names of a table's columns by their kinds, without what nobody would read."""
    if not 0 < len(facts.columns) <= MOST_NAMED:
        return {}
    kinds = dict.fromkeys(column.kind for column in facts.columns)
    return {"columns": {kind: [each.name for each in facts.columns if each.kind == kind] for kind in kinds}}


def numbers_line(values: Mapping[str, float]) -> str:
    """The three numbers of the bound."""
    names = ["elbo", "reconstruction", "kl"]
    if "bound" in values and values["bound"] != values["elbo"]:
        names = ["bound", *names]
    shown = [f"{key} {values[key]:.2f}" for key in names if key in values]
    return ", ".join(shown) + " nats per example"


def epoch_line(
    state: TrainingState, train: Mapping[str, float], held_out: Mapping[str, float] | None, is_best: bool
) -> str:
    """Return an epoch's numbers in a row, below their names above the first and every twentieth row."""
    epochs, held_out = state.config["epochs"], held_out or {}
    numbers = {"train elbo": train.get("elbo"), "validation elbo": held_out.get("elbo")}
    if held_out.get("bound") == held_out.get("elbo"):
        numbers["reconstruction"] = (held_out or train).get("reconstruction")
    else:
        numbers["validation bound"] = held_out["bound"]
    numbers["kl"] = (held_out or train).get("kl")
    cells = {name: f"{value:.2f}" for name, value in numbers.items() if value is not None}
    cells[f"{state.facts.noun}s/s"] = f"{train['images_per_second']:,.0f}"
    width = max(5, 2 * len(str(epochs)) + 1)
    row = [f"{state.position.epoch}/{epochs}".rjust(width)]
    row += [cell.rjust(max(len(name), NARROWEST)) for name, cell in cells.items()]
    row[-1] += " (best)" if is_best else ""
    if train["skipped_steps"]:
        limit = state.config["skip_grad_norm"]
        reason = "not finite" if limit is None else f"not finite, or a gradient above skip_grad_norm={limit:g}"
        row.append(f"{train['skipped_steps']} steps skipped: {reason}")
    titles = ["epoch".rjust(width), *(name.rjust(NARROWEST) for name in cells)]
    state.rows += 1
    return "\n".join(["  ".join(titles)] * (state.rows % ROWS == 1) + ["  ".join(row)])


class ProgressBar:
    """A bar over the whole training, on a terminal and in a notebook. Elsewhere the line per epoch must do."""

    FORMAT = "{desc} {bar} {n_fmt}/{total_fmt} steps, {elapsed} gone, {remaining} to go{postfix}"

    def __init__(self, state: TrainingState) -> None:
        self.state, self._shown = state, time.monotonic()
        is_shown = sys.stderr.isatty() or _is_notebook()
        self.is_hidden = not state.rank.is_main or not is_shown or bool(os.environ.get("CI"))
        has_width = self.is_hidden or (sys.stderr.isatty() and os.get_terminal_size(sys.stderr.fileno()).columns > 0)
        self._bar = tqdm(
            desc="training",
            total=state.config["epochs"] * len(state.batches),
            initial=state.position.step,
            disable=self.is_hidden,
            bar_format=self.FORMAT,
            ncols=None if has_width else 100,
            dynamic_ncols=has_width,
            leave=False,
            file=sys.stdout if _is_notebook() else sys.stderr,  # of a notebook one stream with the log
        )

    def advance(self) -> None:
        """Count a step. Twice a second show the epoch's numbers, which waits for the device."""
        self._bar.update()
        if self.is_hidden or time.monotonic() - self._shown <= 0.5:
            return
        at, means = self.state.position, self.state.totals.means()
        speed = at.batch * self.state.batches.batch_size / max(at.seconds, 1e-9)
        numbers = [f"{key} {means[key]:.1f}" for key in ("elbo", "kl") if key in means]
        self._bar.set_description_str(f"epoch {at.epoch + 1}/{self.state.config['epochs']}", refresh=False)
        self._bar.set_postfix_str(", ".join([*numbers, f"{speed:,.0f} {self.state.facts.noun}s/s"]))
        self._shown = time.monotonic()

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()


def _is_notebook() -> bool:
    """Return whether the cells of a Jupyter notebook run here."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return type(shell).__name__ == "ZMQInteractiveShell" or "google.colab" in sys.modules
