"""One job of a sweep: it goes on after an interruption, and leaves nothing to the next."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest
import torch

from tests.support.sweeping import SMALL, FakeTraining, Killed, assert_same, statuses, sweep
from vae_cli.runs.directory import RunDirectory
from vae_cli.sweeps import task
from vae_cli.sweeps.job import read_jobs
from vae_cli.system import streams, threads


def test_threads_of_one_job_are_not_those_of_the_next():
    counts, before = [], torch.get_num_threads()

    class Counting(FakeTraining):
        def begin(self, settings):
            threads.use_threads(settings["threads"])
            counts.append(torch.get_num_threads())

    assert sweep("threads=1,3,null", "sweep=s", train=Counting()) == 0
    assert counts == [1, 3, before]


def at_metrics(monkeypatch, count, act):
    """Act when the line of metrics of that number is written."""
    write, lines = RunDirectory.metrics, []

    def acting(self, *args):
        write(self, *args)
        lines.append(args)
        if len(lines) == count:
            act()

    monkeypatch.setattr(RunDirectory, "metrics", acting)


def killed():
    raise Killed


def test_an_interrupted_or_killed_job_goes_on_to_the_same_end(monkeypatch, capsys):
    argv = [*SMALL, "latent_dim=2,3", "dataset.binarize=dynamic"]
    assert sweep(*argv, "sweep=whole") == 0
    with monkeypatch.context() as patch:
        at_metrics(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert sweep(*argv, "sweep=s") == 143
    assert statuses() == ["interrupted"] and "1 interrupted, 1 pending" in capsys.readouterr().out
    for count in (1, 4):
        with monkeypatch.context() as patch, pytest.raises(Killed):
            at_metrics(patch, count, killed)
            sweep(*argv, "sweep=s")
    Path("s/latent_dim-3/checkpoints/last.safetensors").write_bytes(b"cut short")
    assert sweep(*argv, "sweep=s") == 0 and not Path("s/.stop").exists()
    for name in ("latent_dim-2", "latent_dim-3"):
        assert_same(f"whole/{name}", f"s/{name}")


def test_a_hangup_saves_the_job_and_ends_the_sweep(monkeypatch):
    at_metrics(monkeypatch, 1, lambda: os.kill(os.getpid(), signal.SIGHUP))
    assert sweep(*SMALL, "latent_dim=2,3", "sweep=s") == 129
    assert statuses() == ["interrupted"]


@pytest.mark.slow
def test_a_sweep_whose_reader_goes_away_saves_its_jobs_and_goes_on_when_it_is_started_again(monkeypatch):
    argv, has_gone = [*SMALL, "latent_dim=2,3", "sweep=s"], threading.Event()

    def go():
        has_gone.set()
        time.sleep(0.2)

    with monkeypatch.context() as patch:
        patch.setattr(task, "POLL", 0.01)
        patch.setattr(streams, "has_reader", lambda: not has_gone.is_set())
        at_metrics(patch, 1, go)
        assert sweep(*argv) == 1
    assert statuses() == ["interrupted"] and not Path("s/latent_dim-3/summary.json").exists()
    assert sweep(*argv) == 0 and statuses() == ["completed", "completed"]


def test_a_job_says_which_of_how_many_it_is_in_a_short_line(capsys):
    assert sweep("latent_dim=2", "optimizer=sgd,adam", "sweep=s", train=FakeTraining()) == 0
    assert sweep("latent_dim=1,2,3", "optimizer=sgd,adam", "sweep=s", train=FakeTraining()) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if " of " in line]
    assert lines[:2] == ["1 of 2  optimizer-sgd begins", "1 of 2  optimizer-sgd completed: test elbo -17.00, 0.0 s"]
    begun = [line for line in lines if line.endswith("begins")]
    assert len(begun) == 6 and begun[2] == "1 of 6  latent_dim-1__optimizer-sgd begins"
    assert begun[-1] == "6 of 6  latent_dim-3__optimizer-adam begins" and all(len(line) <= 80 for line in lines)


@pytest.mark.slow
def test_a_checkpoint_that_cannot_be_opened_is_put_aside_and_not_lost():
    assert sweep(*SMALL, "latent_dim=2", "sweep=s") == 0
    [job] = read_jobs(Path("s"))
    before = job.run.summary["test"]
    (job.path / "summary.json").unlink()
    for name in ("best", "last"):
        (job.path / f"checkpoints/{name}.safetensors").write_bytes(b"damaged")
    assert sweep(*SMALL, "latent_dim=2", "sweep=s") == 0
    assert job.run.summary["test"] == before
    assert (job.path / "checkpoints/last.safetensors.set_aside").read_bytes() == b"damaged"


@pytest.mark.slow
def test_a_job_with_a_class_of_ones_own_goes_on_by_the_same_command(monkeypatch, tmp_path):
    code = "from vae_cli.networks import MLPEncoder\n\n\nclass Mine(MLPEncoder):\n    pass\n"
    (tmp_path / "my_sweep_package.py").write_text(code)
    argv = [*SMALL, "latent_dim=2", "encoder._target_=my_sweep_package.Mine", "sweep=s"]
    with monkeypatch.context() as patch:
        at_metrics(patch, 1, lambda: os.kill(os.getpid(), signal.SIGTERM))
        assert sweep(*argv) == 143
    assert sweep(*argv) == 0 and statuses() == ["completed"]
