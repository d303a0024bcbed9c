"""Training: `run` sets a run up and finishes it, `fit` is the loop."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vae_cli import build, checkpoint, config, figures, noise, sample
from vae_cli.checks import parse_interval
from vae_cli.data import Data, Split
from vae_cli.data.batches import Batches, labels, moments, pixels
from vae_cli.ema import EMA
from vae_cli.errors import UserError
from vae_cli.evaluate import evaluate
from vae_cli.interruption import Interrupted, Interruption
from vae_cli.model import VAE
from vae_cli.objectives import Bound
from vae_cli.outputs import Progress, RunDirectory, log
from vae_cli.totals import Totals

SHOWN_SAMPLES = 64
SHOWN_RECONSTRUCTIONS = 32
PATIENCE = 20  # steps in a row that may fail before the run does
DEVICE_CHECK = 100  # steps between looks at what only the device knows

Config = dict[str, Any]


class TrainingError(UserError):
    """The training diverged."""


@dataclass
class Position:
    """Where a training stands: `batch` batches into epoch number `epoch`, counted from 0, after `step` steps."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0


class Guard:
    """Keeps losses and gradients that are not finite away from the weights, and counts them on the device."""

    def __init__(self, device: torch.device) -> None:
        self.skipped, self.streak, self.longest = torch.zeros(3, dtype=torch.int64, device=device).unbind()

    def record(self, finite: Tensor) -> None:
        failed = (~finite).long()
        self.skipped += failed
        self.streak.add_(failed).mul_(failed)
        torch.maximum(self.longest, self.streak, out=self.longest)

    def check(self, step: int, last: Path) -> None:
        """Look, which waits for the device, and end the training if too many steps in a row were kept away."""
        if int(self.longest) >= PATIENCE:
            raise TrainingError(
                f"the loss or its gradient was not finite {PATIENCE} steps in a row, up to step {step}: try a smaller "
                f"optimizer.lr, clip_grad_norm=100 or precision=float32; the last good weights are in {last}"
            )


class Training:
    """All that changes while a model is trained, and the plain data it is saved as."""

    def __init__(self, settings: Config, data: Data, device: torch.device) -> None:
        self.settings, self.facts, self.device = settings, data.facts, device
        self.batches = Batches(_on_device(data.train, device), settings["batch_size"], settings["seed"], device)
        _seed_everything(noise.key(settings["seed"], "weights"))
        self.model = build.model(settings, data.facts)
        if settings["init_output_bias"]:
            _start_at_mean(self.model, data.train)
        self.model.to(device)
        if settings["compile"]:
            self.model.encoder.compile()
            self.model.decoder.compile()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.objective = build.objective(settings, self.model, data.facts, len(self.batches))
        self.optimizer = build.optimizer(settings, self.model)
        self.schedule = build.schedule(settings, len(self.batches))
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = None if settings["ema_decay"] is None else EMA(self.model, settings["ema_decay"])
        self.position = Position()
        self.best: dict[str, Any] | None = None
        self.totals = Totals(device)
        self.guard = Guard(device)
        _seed_everything(noise.key(settings["seed"], "training"))

    def noise(self, images: int, epoch: int, number: int) -> Tensor:
        """Base noise (K, B, D) of one batch: a function of the seed and the batch's place alone."""
        stream = noise.generator(self.settings["seed"], "noise", epoch, number, device=self.device)
        shape = (self.objective.mc_samples, images, self.model.noise_dim)
        return torch.randn(shape, generator=stream, device=self.device)

    def descend(self, bound: Bound) -> None:
        """Step the optimizer along the gradients that `bound.loss` left, if all of them are finite."""
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * self.schedule(self.position.step)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = (bound.loss.detach() + norm).isfinite()
        if self.settings["clip_grad_norm"] is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings["clip_grad_norm"], norm)
        if (
            self.device.type != "cpu"
        ):  # asking it would stall it: the step is taken along zeros, with what momentum is left
            for gradient in gradients:
                gradient.masked_fill_(~finite, 0)
            self.optimizer.step()
        elif finite:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.position.step += 1
        if self.ema is not None:
            self.ema.update(self.position.step)
        self.totals.add(bound, finite)
        self.guard.record(finite)

    def contents(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        guard = {"skipped": int(self.guard.skipped), "streak": int(self.guard.streak)}
        counts = {"totals": self.totals.state_dict()} | guard
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"rates": self.rates, "total_steps": self.schedule.total_steps},
            "progress": asdict(self.position) | counts,
            "random": checkpoint.random_state(self.device),
            "best": self.best,
            "config": self.settings,
            "data": asdict(self.facts),
            "version": checkpoint.VERSION,
        }

    def save(self, path: Path) -> None:
        """Write a checkpoint, unless the weights have been ruined.

        Raises:
            TrainingError: if a weight is not finite.
        """
        if not all(bool(p.isfinite().all()) for p in self.parameters):
            raise TrainingError(
                f"a weight is no longer finite after step {self.position.step}: try a smaller optimizer.lr or "
                f"clip_grad_norm=100; the last good weights are in {path.parent / 'last.pt'}"
            )
        checkpoint.save(path, self.contents())

    @contextmanager
    def evaluated(self) -> Iterator[VAE]:
        """The model with the weights to be judged by: the averaged ones where an average is kept."""
        with nullcontext() if self.ema is None else self.ema.applied():
            yield self.model


def run(settings: Config, directory: Path, given: frozenset[str] = frozenset()) -> int:
    """Train, score on the test split once, and write the run directory.

    Args:
        settings: the plain composed config.
        directory: the run directory.
        given: dotted keys that were typed.

    Returns:
        The exit status: 0, or 130 or 143 after a signal.

    Raises:
        UserError: for anything a person can mend; the run directory's summary says it too.
    """
    if any((directory / "checkpoints").glob("*.pt")):
        raise UserError(f"{directory} holds a training already; choose another hydra.run.dir, or delete it")
    with RunDirectory(directory) as output:
        try:
            _run(settings, given, output)
        except Interrupted as stop:
            log.info("interrupted by %s; saved in %s", stop, output.checkpoint("last"))
            output.summary("interrupted")
            return stop.exit_status
        except (KeyboardInterrupt, SystemExit):
            output.summary("interrupted")
            raise
        except Exception as error:
            log.debug("traceback", exc_info=True)
            output.summary("failed", error=_one_line(error))
            raise
    return 0


def _one_line(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0]
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text}"


def _run(settings: Config, given: frozenset[str], output: RunDirectory) -> None:
    began = time.monotonic()
    settings, dropped = build.settle(settings, given)
    device = build.device(settings["device"])
    data = build.dataset(settings).splits()
    settings = build.with_likelihood(settings, data.facts)
    training = Training(settings, data, device)
    output.write("config.yaml", config.to_yaml(settings))
    _announce(training, data, output, dropped)
    validation = None if data.validation is None else _on_device(data.validation, device)
    with Interruption() as interruption:
        fit(training, validation, output, interruption)
    _finish(training, data, output, began)


def fit(training: Training, validation: Split | None, output: RunDirectory, interruption: Interruption) -> None:
    """Optimize the objective from where the training stands to its last epoch.

    Raises:
        Interrupted: after a signal, once the step is finished and last.pt written.
        TrainingError: if the losses, the weights or the validation's bound are not finite.
    """
    model, objective, at = training.model, training.objective, training.position
    epochs, last = training.settings["epochs"], output.checkpoint("last")
    cadence = Cadence(training.settings["checkpoint_every"])
    training.save(last)
    model.train()
    with Progress(epochs * len(training.batches), at.step) as bar:
        while at.epoch < epochs and not _is_stale(training):
            began = time.monotonic() - at.seconds
            for number, batch in training.batches.epoch(at.epoch, start=at.batch):
                drawn = training.noise(len(batch[0]), at.epoch, number)
                bound = objective(model, batch, drawn, at.step)
                bound.loss.backward()
                training.descend(bound)

                at.batch, at.seconds = number + 1, time.monotonic() - began
                bar.advance()
                if bar.due:
                    bar.show(*_progress(training))
                if training.device.type == "cpu" or at.step % DEVICE_CHECK == 0:
                    training.guard.check(at.step, last)
                if interruption.signal_number is not None:
                    training.save(last)
                    raise Interrupted(interruption.signal_number)
                if cadence.time_is_up():
                    training.save(last)
            training.guard.check(at.step, last)  # waits for the device, so that the epoch's time is whole
            at.seconds = time.monotonic() - began
            _end_epoch(training, validation, output, cadence)
    if interruption.signal_number is not None:
        raise Interrupted(interruption.signal_number)


class Cadence:
    """When to write a checkpoint: every so many epochs, or every so many seconds."""

    def __init__(self, interval: int | str) -> None:
        self.epochs, self.seconds = parse_interval(interval)
        self._saved = time.monotonic()

    def time_is_up(self) -> bool:
        """Whether the interval has passed; if so a new one begins."""
        if self.seconds is None or time.monotonic() - self._saved < self.seconds:
            return False
        self._saved = time.monotonic()
        return True

    def ends_with(self, epoch: int) -> bool:
        return self.epochs is not None and epoch % self.epochs == 0


def _end_epoch(training: Training, validation: Split | None, output: RunDirectory, cadence: Cadence) -> None:
    at, settings = training.position, training.settings
    at.epoch, at.batch = at.epoch + 1, 0
    is_last = at.epoch == settings["epochs"]
    if is_last or at.epoch % settings["log_every"] == 0:
        train = _train_numbers(training)
        output.metrics(at.epoch, at.step, "train", train)
        held_out = None if validation is None else _validate(training, validation, output)
        if held_out is not None:
            output.metrics(at.epoch, at.step, "validation", held_out)
        is_best = _select(training, held_out)
        log.info(_epoch_line(training, train, held_out, is_best))
        training.totals = Totals(training.device)
        if is_best:
            training.save(output.checkpoint("best"))
    _note(training, output)
    at.seconds = 0.0
    every = settings["sample_every"]
    if every and (at.epoch == 1 or at.epoch % every == 0):
        _draw(training, validation, output, f"epoch_{at.epoch:04d}")
    if is_last or cadence.ends_with(at.epoch) or _is_stale(training):
        training.save(output.checkpoint("last"))


def _train_numbers(training: Training) -> dict[str, float]:
    at = training.position
    images = len(training.batches.split)
    return training.totals.means() | {
        "lr": training.optimizer.param_groups[0]["lr"],
        "skipped_steps": int(training.guard.skipped),
        "images_per_second": images / max(at.seconds, 1e-9),
        "seconds": at.seconds,
    }


def _validate(training: Training, split: Split, output: RunDirectory) -> dict[str, float]:
    with training.evaluated() as model:
        numbers = evaluate(model, training.objective, split, training.settings["seed"], training.position.step)
    if not math.isfinite(numbers["bound"]):
        raise TrainingError(
            f"the validation's bound is {numbers['bound']} after epoch {training.position.epoch}: try a smaller "
            "optimizer.lr, clip_grad_norm=100 or precision=float32; the last good weights are in "
            f"{output.checkpoint('last')}"
        )
    return numbers


def _select(training: Training, held_out: dict[str, float] | None) -> bool:
    """Whether this epoch's weights are the best so far by the validation's bound; remembers them if so."""
    if held_out is None or (training.best is not None and held_out["bound"] <= training.best["validation"]["bound"]):
        return False
    training.best = {"epoch": training.position.epoch, "step": training.position.step, "validation": held_out}
    return True


def _is_stale(training: Training) -> bool:
    """Whether early stopping is on and the best epoch lies its number of epochs back."""
    patience = training.settings["early_stopping"]
    return bool(patience and training.best and training.position.epoch - training.best["epoch"] >= patience)


def _note(training: Training, output: RunDirectory) -> None:
    best = training.best or {"epoch": None, "validation": None}
    output.note(epochs=training.position.epoch, best_epoch=best["epoch"], validation=best["validation"])


def _finish(training: Training, data: Data, output: RunDirectory, began: float) -> None:
    """Score the selected weights on the test split, draw the final pictures and sum up."""
    settings, at = training.settings, training.position
    chosen = output.checkpoint("last" if training.best is None else "best")
    training.ema = None
    training.model.load_state_dict(checkpoint.weights(checkpoint.load(chosen)))
    test = _on_device(data.test, training.device)
    epoch, step = (at.epoch, at.step) if training.best is None else (training.best["epoch"], training.best["step"])
    numbers = evaluate(training.model, training.objective, test, settings["seed"], step)
    output.metrics(epoch, step, "test", numbers)
    _draw(training, test, output, None)
    parameters = sum(p.numel() for p in training.parameters)
    output.note(test=numbers, parameters=parameters, seconds=time.monotonic() - began)
    _note(training, output)
    output.summary("completed")
    log.info("test        %s", _numbers(numbers))
    log.info("pictures    %s, reconstructions.png", output.path / "samples.png")
    log.info("checkpoint  %s", chosen)


def _draw(training: Training, split: Split | None, output: RunDirectory, name: str | None) -> None:
    """Samples and reconstructions: under `name` in their folders, or as the final ones without one."""
    seed, step = training.settings["seed"], training.position.step

    def samples() -> Image.Image:
        noise_ = sample.base_noise(0, SHOWN_SAMPLES, model.prior.noise_dim, seed).to(training.device)
        return figures.grid(model.sample(noise_).mean)

    def reconstructions() -> Image.Image:
        assert split is not None
        shown = slice(0, SHOWN_RECONSTRUCTIONS)
        x, y = pixels(split, shown, training.device), labels(split, shown, training.device)
        return figures.pairs(x, model.reconstruct(x, y).mean)

    with training.evaluated() as model, torch.no_grad():
        model.eval()
        output.picture("samples" if name is None else f"samples/{name}", samples, step)
        if split is not None:
            output.picture("reconstructions" if name is None else f"reconstructions/{name}", reconstructions, step)
        model.train()


def _seed_everything(seed: int) -> None:
    """Start every stream that a network might draw from; the program itself draws from none of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def _on_device(split: Split, device: torch.device) -> Split:
    """The split in the device's memory if it takes less than half of what is free there, else where it is."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if split.images.numel() * split.images.element_size() > free / 2:
            return split
    return split.to(device)


def _start_at_mean(model: VAE, split: Split) -> None:
    """Let the decoder's output start at what describes the mean training image."""
    output = model.likelihood.start_at(*moments(split))
    start_at = getattr(model.decoder, "start_at", None)
    if callable(start_at):
        start_at(output)
    else:
        log.info("decoder     %s has no start_at(output): its output bias stays as built", type(model.decoder).__name__)


def _announce(training: Training, data: Data, output: RunDirectory, dropped: list[str]) -> None:
    facts, settings = data.facts, training.settings
    counts = [f"{len(data.train):,} train"]
    counts += [f"{len(data.validation):,} validation"] if data.validation else ["no validation: the last weights count"]
    channels, height, width = facts.shape
    parameters = sum(p.numel() for p in training.parameters)
    log.info("run         %s", output.path)
    log.info("data        %s, %d×%d×%d, %s", facts.name, channels, height, width, build.SUPPORTS[facts.support])
    log.info("images      %s, %s test", ", ".join(counts), f"{len(data.test):,}")
    log.info(
        "model       %s",
        ", ".join(f"{g}={_class_name(settings, g)}" for g in ("encoder", "decoder", "posterior")),
    )
    kind = "probabilities" if training.model.likelihood.discrete else "a density of x on [0, 1]"
    log.info("likelihood  %s (%s)", _class_name(settings, "likelihood"), kind)
    log.info(
        "training    %s parameters on %s, %s steps an epoch",
        f"{parameters:,}",
        training.device,
        len(training.batches),
    )
    if dropped:
        log.info("dropped     %s: the replaced class's, not taken by the new one", ", ".join(dropped))
    log.debug("config\n%s", config.to_yaml(settings))


def _class_name(settings: Config, group: str) -> str:
    return settings[group]["_target_"].rpartition(".")[2]


def _numbers(values: Mapping[str, float]) -> str:
    shown = [f"{key} {values[key]:.2f}" for key in ("elbo", "reconstruction", "kl") if key in values]
    return ", ".join(shown) + " nats per image"


def _epoch_line(
    training: Training, train: Mapping[str, float], held_out: Mapping[str, float] | None, is_best: bool
) -> str:
    at, epochs = training.position, training.settings["epochs"]
    title = f"epoch {at.epoch:>{len(str(epochs))}}/{epochs}"
    elbo = f"train elbo {train['elbo']:.2f}" if "elbo" in train else "every step was skipped"
    parts = [title, elbo]
    if held_out is not None:
        best = " (best)" if is_best else ""
        parts.append(f"validation {_numbers(held_out).removesuffix(' nats per image')}{best}")
    parts.append(f"{train['images_per_second']:,.0f} images/s")
    if train["skipped_steps"]:
        parts.append(f"{train['skipped_steps']} steps skipped: not finite")
    return "  ".join(parts)


def _progress(training: Training) -> tuple[str, str]:
    """A bar's title and numbers; asking for them waits for the device."""
    at, means = training.position, training.totals.means()
    speed = at.batch * training.batches.batch_size / max(at.seconds, 1e-9)
    numbers = [f"{key} {means[key]:.1f}" for key in ("elbo", "kl") if key in means]
    return f"epoch {at.epoch + 1}/{training.settings['epochs']}", ", ".join(["", *numbers, f"{speed:,.0f} images/s"])
