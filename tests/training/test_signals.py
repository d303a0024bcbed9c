"""A signal ends a training after the step."""

import json
import os
import signal

import pytest

from tests.support.training import settings
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training.run import run as train
from vae_cli.training.signals import StopSignals


@pytest.fixture
def hangup():
    """Puts the handler of SIGHUP back."""
    before = signal.getsignal(signal.SIGHUP)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(number, code, tmp_path, monkeypatch):
    at = loop.step

    def interrupting(state, *arguments):
        at(state, *arguments)
        if state.position.step == 15:
            os.kill(os.getpid(), number)

    monkeypatch.setattr(loop, "step", interrupting)
    assert train(settings("epochs=5"), tmp_path) == code
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["epochs"] == summary["best_epoch"] == 1
    assert summary["validation"]["elbo"] < 0 and summary["test"] is None and summary["error"] is None
    progress = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")["progress"]
    assert (progress["epoch"], progress["batch"], progress["step"]) == (1, 3, 15)


def test_signal_handlers_are_put_back():
    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_hangup_that_is_ignored_from_the_start_ends_nothing(hangup):
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with StopSignals() as interruption:
        signal.raise_signal(signal.SIGHUP)
        assert interruption.received is None
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
