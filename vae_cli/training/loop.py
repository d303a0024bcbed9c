"""The loop."""

from __future__ import annotations

import math
import time

from vae_cli.config.validation import parse_interval
from vae_cli.data import Split
from vae_cli.evaluation.bounds import evaluate
from vae_cli.evaluation.totals import Totals
from vae_cli.runs.directory import Progress, RunDirectory, log
from vae_cli.training.console import draw, epoch_line, progress
from vae_cli.training.signals import Interrupted, Interruption
from vae_cli.training.state import Training, TrainingError

DEVICE_CHECK = 100  # steps between looks at what only the device knows


def fit(training: Training, validation: Split | None, output: RunDirectory, interruption: Interruption) -> None:
    """Optimize the objective from where the training stands to its last epoch.

    Raises:
        Interrupted: after a signal, once the step is finished and last.pt written.
        TrainingError: if the losses, the weights or the validation's bound are not finite.
    """
    model, at = training.model, training.position
    epochs, last = training.settings["epochs"], output.checkpoint("last")
    cadence, processes = Cadence(training.settings["checkpoint_every"]), training.processes
    training.copy_first()
    training.save(last)
    model.train()
    with Progress(epochs * len(training.batches), at.step, hidden=not processes.is_first) as bar:
        while at.epoch < epochs and not _is_stale(training):
            began = time.monotonic() - at.seconds
            for number, batch in training.batches.epoch(at.epoch, start=at.batch):
                drawn = training.noise(len(batch[0]), at.epoch, number)
                bound = training.bound(batch, drawn)
                bound[0].backward()
                training.descend(bound)

                at.batch, at.seconds = number + 1, time.monotonic() - began
                bar.advance()
                if bar.due:
                    bar.show(*progress(training))
                if training.device.type == "cpu" or at.step % DEVICE_CHECK == 0:
                    training.guard.check(at.step, last)
                is_due = processes.is_first and cadence.time_is_up()
                signal_number, wanted = processes.agree(interruption.signal_number or 0, int(is_due))
                if signal_number or wanted:
                    training.save(last)
                if signal_number:
                    raise Interrupted(signal_number)
            training.guard.check(at.step, last)  # waits for the device, so that the epoch's time is whole
            at.seconds = time.monotonic() - began
            _end_epoch(training, validation, output, cadence)
    (signal_number,) = processes.agree(interruption.signal_number or 0)
    if signal_number:
        raise Interrupted(signal_number)


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
    """Report, draw, and save last, so that whoever resumes finds all that belongs to the epoch."""
    at, settings = training.position, training.settings
    at.epoch, at.batch = at.epoch + 1, 0
    is_last, is_best = at.epoch == settings["epochs"], False
    if is_last or at.epoch % settings["log_every"] == 0:
        is_best = _report(training, validation, output)
    every = settings["sample_every"]
    if every and (at.epoch == 1 or at.epoch % every == 0):
        draw(training, validation, output, f"epoch_{at.epoch:04d}")
    _note(training, output)
    at.seconds = 0.0
    due = {"best": is_best, "last": is_last or cadence.ends_with(at.epoch) or _is_stale(training)}
    if any(due.values()):
        training.save(*(output.checkpoint(name) for name, is_due in due.items() if is_due))


def _report(training: Training, validation: Split | None, output: RunDirectory) -> bool:
    """Write an epoch's numbers; whether its weights are the best so far."""
    at = training.position
    train = _train_numbers(training)
    output.metrics(at.epoch, at.step, "train", train)
    held_out = None if validation is None else _validate(training, validation, output)
    if held_out is not None:
        output.metrics(at.epoch, at.step, "validation", held_out)
    is_best = _select(training, held_out)
    log.info(epoch_line(training, train, held_out, is_best))
    training.totals = Totals(training.device)
    return is_best


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
    training.copy_buffers()
    with training.evaluated() as model:
        seed, step = training.settings["seed"], training.position.step
        numbers = evaluate(model, training.objective, split, seed, step, training.processes)
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
