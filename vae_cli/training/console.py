"""What a training says about itself."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import torch

from vae_cli import __version__
from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.constraints import show
from vae_cli.data import Data, Split
from vae_cli.data.batches import labels, pixels
from vae_cli.evaluation import latent_codes
from vae_cli.generation.pictures import reconstruction_grid, sample_grid, traversal_picture
from vae_cli.reporting import charts
from vae_cli.runs.directory import RunDirectory, log
from vae_cli.training.state import Config, Training


def announce(training: Training, data: Data, output: RunDirectory, dropped: list[str]) -> None:
    """Say what is trained on what, and where."""
    facts, settings = data.facts, training.settings
    counts = [f"{len(data.train):,} train"]
    counts += [f"{len(data.validation):,} validation"] if data.validation else ["no validation: the last weights count"]
    channels, height, width = facts.shape
    parameters = sum(p.numel() for p in training.parameters)
    log.info("run         %s", output.path)
    log.info("data        %s, %d×%d×%d, %s", facts.name, channels, height, width, parts.SUPPORTS[facts.support])
    log.info("images      %s, %s test", ", ".join(counts), f"{len(data.test):,}")
    for note in data.notes:
        log.info("note        %s", note)
    log.info(
        "model       %s",
        ", ".join(f"{g}={_class_name(settings, g)}" for g in ("encoder", "decoder", "posterior", "prior")),
    )
    if classes := training.model.classes:
        log.info("condition   q(z|x, y) and p(x|z, y), y one of %d labels", classes)
        seen = 0 if data.train.labels is None else len(data.train.labels.unique())
        if seen < classes:
            log.info("note        no training image has %d of those labels: nothing is learned of them", classes - seen)
    kind = "probabilities" if training.model.likelihood.discrete else "a density of x on [0, 1]"
    log.info("likelihood  %s (%s)", _class_name(settings, "likelihood"), kind)
    draws = settings["mc_samples"]
    shaped = ", ".join(f"{key}={show(value)}" for key, value in settings["objective"].items() if key != "_target_")
    name = _class_name(settings, "objective") + (f" ({shaped})" if shaped else "")
    log.info("objective   %s, %d draw%s an image", name, draws, "s" if draws > 1 else "")
    log.info(
        "training    %s parameters on %s, %s steps an epoch",
        f"{parameters:,}",
        training.device,
        len(training.batches),
    )
    if training.processes.count > 1:
        log.info("processes   %s", _division(training))
    if dropped:
        log.info("dropped     %s: the replaced class's, not taken by the new one", ", ".join(dropped))
    log.debug("config\n%s", compose.to_yaml(settings))


def _division(training: Training) -> str:
    """How a batch is divided among the processes."""
    count, images = training.processes.count, training.batches.batch_size
    each = f"{images // count}" if images % count == 0 else f"{images // count} to {training.batches.largest}"
    return f"{count} × {each} images = batches of {images}"


def about(training: Training, data: Data) -> dict[str, Any]:
    """What the summary says of a training before it has any numbers."""
    facts = data.facts
    sizes = {"train": len(data.train), "validation": len(data.validation or ()), "test": len(data.test)}
    kind = torch.cuda.get_device_name(training.device) if training.device.type == "cuda" else str(training.device)
    return {
        "data": {"name": facts.name, "shape": list(facts.shape), "support": facts.support} | sizes,
        "parameters": sum(p.numel() for p in training.parameters),
        "device": kind,
        "started": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        **({"processes": training.processes.count} if training.processes.count > 1 else {}),
        "versions": {"vae_cli": __version__, "torch": str(torch.__version__)},
    }


def _class_name(settings: Config, group: str) -> str:
    return settings[group]["_target_"].rpartition(".")[2]


def numbers_line(values: Mapping[str, float]) -> str:
    """The three numbers of the bound."""
    names = ["elbo", "reconstruction", "kl"]
    if "bound" in values and values["bound"] != values["elbo"]:
        names = ["bound", *names]
    shown = [f"{key} {values[key]:.2f}" for key in names if key in values]
    return ", ".join(shown) + " nats per image"


def epoch_line(
    training: Training, train: Mapping[str, float], held_out: Mapping[str, float] | None, is_best: bool
) -> str:
    """What an epoch brought, in one line."""
    at, epochs = training.position, training.settings["epochs"]
    title = f"epoch {at.epoch:>{len(str(epochs))}}/{epochs}"
    elbo = f"train elbo {train['elbo']:.2f}" if "elbo" in train else "every step was skipped"
    parts = [title, elbo]
    if held_out is not None:
        best = " (best)" if is_best else ""
        parts.append(f"validation {numbers_line(held_out).removesuffix(' nats per image')}{best}")
    parts.append(f"{train['images_per_second']:,.0f} images/s")
    if train["skipped_steps"]:
        parts.append(f"{train['skipped_steps']} steps skipped: not finite")
    return "  ".join(parts)


def progress(training: Training) -> tuple[str, str]:
    """A bar's title and numbers; asking for them waits for the device."""
    at, means = training.position, training.totals.means()
    speed = at.batch * training.batches.batch_size / max(at.seconds, 1e-9)
    numbers = [f"{key} {means[key]:.1f}" for key in ("elbo", "kl") if key in means]
    return f"epoch {at.epoch + 1}/{training.settings['epochs']}", ", ".join([*numbers, f"{speed:,.0f} images/s"])


SHOWN_RECONSTRUCTIONS = 32
ENCODED = 10_000  # most test images whose codes are looked at
HELD = 1 << 26  # numbers of their posteriors in memory at most


def draw(training: Training, split: Split | None, output: RunDirectory, name: str | None) -> None:
    """Samples and reconstructions: under `name` in their folders, or as the final ones without one."""
    seed, step = training.settings["seed"], training.position.step
    with training.evaluated() as model:
        model.eval()
        output.picture("samples" if name is None else f"samples/{name}", lambda: sample_grid(model, seed), step)
        if split is not None:
            shown = slice(0, SHOWN_RECONSTRUCTIONS)
            x, y = pixels(split, shown, training.device), labels(split, shown, training.device)
            file = "reconstructions" if name is None else f"reconstructions/{name}"
            output.picture(file, lambda: reconstruction_grid(model, x, y), step)
        model.train()


@torch.no_grad()
def draw_latents(training: Training, test: Split, output: RunDirectory) -> None:
    """The final pictures of the latent space: where the test images lie, what each dimension tells and does; of a
    conditional model for the label 0."""
    model, seed, step = training.model, training.settings["seed"], training.position.step
    model.eval()
    fitting = max(1, HELD // model.posterior.features)
    codes = latent_codes.encode(model, test.spread(min(ENCODED, fitting)), seed)
    means, by_dimension = codes.means, latent_codes.kl_per_dim(model, codes)
    point_labels = None if codes.labels is None else codes.labels.numpy()
    output.picture("traversals", lambda: traversal_picture(model, means), step)
    output.picture("latents", lambda: charts.to_png(charts.latent_codes(means.numpy(), point_labels)), step)
    if by_dimension is not None:
        output.picture("kl_per_dim", lambda: charts.to_png(charts.kl_per_dim(by_dimension.tolist())), step)
    model.train()
