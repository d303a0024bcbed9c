"""The training loop: draw a batch, bound it, follow the gradient back, step; then report, validate and save."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping

from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_

from vae_cli.build.settings import parse_interval
from vae_cli.data import Split
from vae_cli.distributed import collectives
from vae_cli.errors import TrainingError
from vae_cli.evaluation.bounds import evaluate
from vae_cli.evaluation.totals import Totals
from vae_cli.objectives import Sums
from vae_cli.runs.directory import RunDirectory, log
from vae_cli.training.console import ProgressBar, epoch_line
from vae_cli.training.pictures import write_pictures
from vae_cli.training.signals import Interrupted, StopSignals
from vae_cli.training.state import TrainingState
from vae_cli.training.step import gradient_norm, is_finite, step_if_finite

DEVICE_CHECK = 100  # steps on a GPU between looks at what only the device knows


def fit(state: TrainingState, validation: Split | None, output: RunDirectory, signals: StopSignals) -> None:
    """Optimize the objective from where the training stands to its last epoch.

    Raises:
        Interrupted: after a signal, once the step is finished and the last checkpoint is written.
        TrainingError: if the losses, the weights or the validation bound are not finite.
    """
    config = state.config
    last, save_schedule = output.checkpoint("last"), SaveSchedule(config["checkpoint_every"])
    state.broadcast_weights()
    state.save(last)  # a run that is killed in its first epoch can be resumed too
    state.model.train()
    with ProgressBar(state) as bar:
        while state.position.epoch < config["epochs"] and not should_stop_early(state):
            at = state.position
            started = time.monotonic() - at.seconds
            for number, batch in state.batches.epoch(at.epoch, start=at.batch):
                # The bound of this process's part of the batch, its gradient, and a step along it
                noise = state.noise(len(batch[0]), at.epoch, number)
                loss, sums = state.loss(batch, noise)
                loss.backward()
                step(state, loss, sums)
                at.batch, at.seconds = number + 1, time.monotonic() - started
                output.steps(state.step_log.take())
                bar.advance()

                # A checkpoint after so much time, and a last one after a signal to any process
                if state.device.type == "cpu" or at.step % DEVICE_CHECK == 0:
                    _check_skipped(state, output)
                is_due = state.rank.is_main and save_schedule.time_is_up()
                signal_number, should_save = collectives.all_reduce_max(signals.received or 0, int(is_due))
                if signal_number or should_save:
                    output.steps(state.step_log.take(least=1))
                    state.save(last)
                if signal_number:
                    raise Interrupted(signal_number)
            _check_skipped(state, output)  # waits for the device, so that the epoch's time is whole
            at.seconds = time.monotonic() - started
            _end_epoch(state, validation, output, save_schedule)
    (signal_number,) = collectives.all_reduce_max(signals.received or 0)
    if signal_number:
        raise Interrupted(signal_number)


def _check_skipped(state: TrainingState, output: RunDirectory) -> None:
    """End the training if too many steps in a row were skipped, with the numbers of those that led there logged."""
    try:
        state.skipped.check(state.position.step, state.config["skip_grad_norm"])
    except TrainingError:
        output.steps(state.step_log.take(least=1))
        raise


def step(state: TrainingState, loss: Tensor, sums: Sums) -> None:
    """Step the optimizers along the loss's gradients, unless it or they are not finite or the model's are too large,
    and count it all."""
    at, max_norm, skip_norm = state.position, state.config["clip_grad_norm"], state.config["skip_grad_norm"]
    # With several processes: the loss, the sums and the gradients of the whole batch
    loss, sums = state.all_reduce(loss, sums)
    # The step at the schedule's rate, along gradients of at most the largest norm
    for group, rate in zip(state.optimizer.param_groups, state.rates):
        group["lr"] = rate * state.schedule(at.step)
    norm, module = gradient_norm([p.grad for p in state.parameters if p.grad is not None]), state.module
    all_norms = norm if module is None else norm + module.gradient_norm()
    finite = is_finite(loss + all_norms, norm, skip_norm)
    if max_norm is not None:
        clip_grads_with_norm_(state.parameters, max_norm, norm)
    step_if_finite(state.optimizer, state.parameters, finite, is_exact=skip_norm is not None)
    if module is not None:  # of the objective, at a rate of its own
        step_if_finite(module.optimizer, module.parameters, finite, is_exact=skip_norm is not None)
    at.step += 1
    # What is averaged, summed and counted
    if state.ema is not None:
        state.ema.update(at.step)
    state.totals.add(sums, finite)
    state.skipped.record(finite)
    if state.step_log.is_due(at.step):
        settings = {"lr": state.optimizer.param_groups[0]["lr"], **state.objective.scheduled(at.step - 1)}
        state.step_log.record(at.step, at.epoch + 1, sums, norm, settings)


def _end_epoch(
    state: TrainingState, validation: Split | None, output: RunDirectory, save_schedule: SaveSchedule
) -> None:
    """Report, draw and save, last the checkpoint, so that a resumed run finds all that belongs to the epoch."""
    at, config = state.position, state.config
    at.epoch, at.batch = at.epoch + 1, 0
    state.fit_scale()
    is_last, is_best = at.epoch == config["epochs"], False
    if is_last or at.epoch % config["log_every"] == 0:
        is_best = _report(state, validation, output)
    every = config["sample_every"]
    if every and (at.epoch == 1 or at.epoch % every == 0):
        write_pictures(state, validation, output, f"epoch_{at.epoch:04d}")
    output.note(epochs=at.epoch, **best_of(state))
    at.seconds = 0.0
    if is_best or is_last or save_schedule.ends_with(at.epoch) or should_stop_early(state):
        state.save(output.checkpoint("last"), output.checkpoint("best") if is_best else None)


def _report(state: TrainingState, validation: Split | None, output: RunDirectory) -> bool:
    """Write an epoch's numbers, and return whether its weights are the best so far."""
    at = state.position
    train = state.totals.means() | {
        "lr": state.optimizer.param_groups[0]["lr"],
        "skipped_steps": int(state.skipped.total),
        "images_per_second": len(state.batches.split) / max(at.seconds, 1e-9),
        "seconds": at.seconds,
    }
    output.steps(state.step_log.take(least=1))
    output.metrics(at.epoch, at.step, "train", train)
    numbers, is_best = None, False
    if validation is not None:
        numbers = validate(state, validation)
        output.metrics(at.epoch, at.step, "validation", numbers)
        is_best = is_better(state, numbers)
        if is_best:
            state.best = {"epoch": at.epoch, "step": at.step, "validation": numbers}
    log.info(epoch_line(state, train, numbers, is_best))
    state.totals = Totals(state.device)
    return is_best


def validate(state: TrainingState, split: Split) -> dict[str, float]:
    """Return the validation split's numbers.

    Raises:
        TrainingError: if the number that selects is not finite.
    """
    state.broadcast_buffers()
    with state.averaged_weights() as model:
        numbers = evaluate(model, state.objective, split, state.config["seed"], state.position.step, state.rank)
    name = state.objective.selects_by
    if not math.isfinite(numbers[name]):
        raise TrainingError(
            f"the validation {name} is {numbers[name]} after epoch {state.position.epoch}: try a smaller "
            "optimizer.lr, clip_grad_norm=100 or precision=float32; the last checkpoint has the last good weights"
        )
    return numbers


def is_better(state: TrainingState, numbers: Mapping[str, float]) -> bool:
    """Return whether validation numbers are better than the best by the number that the objective selects by.

    Unless the objective is asked for it, no epoch counts while its schedule is moving: weights from the middle of a
    warm-up are not those of the β that was asked for.
    """
    if not state.objective.may_select(state.position.step):
        return False
    if state.best is None:
        return True
    best, name = state.best["validation"], state.objective.selects_by
    return numbers["loss"] < best["loss"] if name == "loss" else numbers["bound"] > best["bound"]


def best_of(state: TrainingState) -> dict[str, object]:
    """Return the best epoch and its validation numbers as the summary holds them."""
    best = state.best or {"epoch": None, "validation": None}
    return {"best_epoch": best["epoch"], "validation": best["validation"]}


def should_stop_early(state: TrainingState) -> bool:
    """Return whether early stopping is on and, after a validation, the best epoch lies its number of epochs back; of
    these none is waited for while a schedule of the objective was moving."""
    patience, at, best = state.config["early_stopping"], state.position, state.best
    if not patience or best is None or at.epoch % state.config["log_every"] or at.epoch - best["epoch"] < patience:
        return False
    since = at.step - patience * len(state.batches)
    return state.objective.is_settled(best["step"]) or state.objective.is_settled(since)


class SaveSchedule:
    """The times at which the last checkpoint is due: every so many epochs, or every so many seconds."""

    def __init__(self, interval: int | str) -> None:
        self.epochs, self.seconds = parse_interval(interval)
        self._saved = time.monotonic()

    def time_is_up(self) -> bool:
        """Return whether the interval has passed; if so a new one begins."""
        if self.seconds is None or time.monotonic() - self._saved < self.seconds:
            return False
        self._saved = time.monotonic()
        return True

    def ends_with(self, epoch: int) -> bool:
        return self.epochs is not None and epoch % self.epochs == 0
