"""Numbers of single steps: which, when they are read, and that they reach the loggers."""

import signal
from types import SimpleNamespace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.training import settings, trained
from vae_cli.config import compose
from vae_cli.loggers import MLflowLogger
from vae_cli.objectives import Sums
from vae_cli.training import loop
from vae_cli.training.run import run as train
from vae_cli.training.step_log import MOST_STEPS, StepLog


def test_a_steps_means_are_read_together_with_those_of_others():
    log = StepLog(total_steps=3)
    for step in (1, 2, 3):
        sums = Sums(["elbo", "loss"], torch.tensor([-10.0, 20.0]) * step, images=2)
        log.record(step, 1, sums, torch.tensor(float(step)), {"lr": 0.1})
    assert log.take(least=4) == []
    records = log.take(least=3)
    assert records[1] == (2, 1, {"elbo": -10.0, "loss": 20.0, "gradient_norm": 2.0, "lr": 0.1}) and len(records) == 3
    assert log.take(least=1) == []


@pytest.mark.parametrize("total", [1, 50, 999, 42_200])
def test_a_training_has_some_five_hundred_recorded_steps_and_a_short_one_all(total):
    log = StepLog(total)
    steps = sum(log.is_due(step) for step in range(1, total + 1))
    assert steps == total if total < 2 * MOST_STEPS else MOST_STEPS <= steps <= 2 * MOST_STEPS


def test_tensorboard_shows_single_steps(tmp_path):
    trained(tmp_path, "epochs=5", "objective.warmup_epochs=4", "objective.beta=2", "scheduler=cosine")
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    curves = {name: events.Scalars(f"step/{name}") for name in ("loss", "elbo", "kl", "gradient_norm", "beta", "lr")}
    assert all([event.step for event in curve] == list(range(1, 61)) for curve in curves.values())
    beta, rate = ([event.value for event in curves[name]] for name in ("beta", "lr"))
    assert beta[0] == 0 and beta[24] == pytest.approx(1.0) and beta[-1] == 2
    assert rate[0] == pytest.approx(1e-3) and rate[-1] < rate[0] / 100
    last_epoch = [event.value for event in curves["elbo"]][-12:]
    (mean,) = [event.value for event in events.Scalars("train/elbo") if event.step == 60]
    assert sum(last_epoch) / 12 == pytest.approx(mean, rel=0.01)


def test_a_resumed_training_shows_every_step_once(tmp_path, monkeypatch):
    plain = loop.step

    def stop_at_17(state, loss, sums):
        plain(state, loss, sums)
        if state.position.step == 17:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(loop, "step", stop_at_17)
    assert train(settings(), tmp_path) == 143
    monkeypatch.undo()
    assert train(compose.compose("train", [f"resume={tmp_path}"]), tmp_path, frozenset({"resume"})) == 0
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [event.step for event in events.Scalars("step/loss")] == list(range(1, 25))


def test_mlflow_gets_single_steps_in_few_requests():
    sent = []
    logger = MLflowLogger()
    logger._client = SimpleNamespace(log_batch=lambda run, metrics: sent.append(metrics))
    logger._id, logger._metric = "id", lambda *values: values
    logger.steps([(step, 1, dict.fromkeys("abcdef", 1.0)) for step in range(300)])
    assert [len(batch) for batch in sent] == [1000, 800]
    assert sent[0][7][0] == "step/b" and sent[0][7][3] == 1


def test_recording_does_not_wait_for_the_device():
    log = StepLog(total_steps=100)
    for step in range(49):  # a meta tensor has no values that could be read
        log.record(step, 1, Sums(["elbo"], torch.ones(1, device="meta"), 2), torch.ones((), device="meta"), {})
    assert log.take() == []
    log.record(49, 1, Sums(["elbo"], torch.ones(1, device="meta"), 2), torch.ones((), device="meta"), {})
    with pytest.raises((RuntimeError, NotImplementedError)):
        log.take()
