"""Several processes train one model: the same numbers as one process, one voice, and one end.

Most trainings here are forked from a server that has imported everything once, with the variables that torchrun sets.
"""

import json
import platform
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.support.torchrun import (
    BATCH,
    SMALL,
    TWO,
    WHATS,
    _disturb,
    alone,
    assert_same_to_rounding,
    together,
)
from vae_cli.config import compose
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training.run import run as train


def files(directory):
    return sorted(str(p.relative_to(directory)) for p in directory.rglob("*") if "tensorboard/" not in str(p))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    return alone(tmp_path_factory.mktemp("alone") / "run")


def test_two_processes_give_the_numbers_and_weights_of_one_with_twice_the_batch(undisturbed, tmp_path):
    statuses, said, complaints = together(2, tmp_path, *TWO)
    assert statuses == [0, 0] and not complaints
    assert "processes   2 × 100 images = batches of 200\n" in said
    assert_same_to_rounding(undisturbed, tmp_path / "run")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["processes"] == 2 and summary["status"] == "completed"
    assert files(tmp_path / "run") == sorted({*files(undisturbed), "command.txt"})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """Two processes, the second of which was asked to stop in the middle of the second epoch."""
    folder = tmp_path_factory.mktemp("stopped")
    statuses, said, complaints = together(2, folder, *TWO, extra=("SIGTERM", 11, 1))
    assert statuses == [143, 143] and not complaints and "interrupted by SIGTERM; vae-train resume=" in said
    assert json.loads((folder / "run" / "summary.json").read_text())["status"] == "interrupted"
    contents = checkpoint.load(folder / "run" / "checkpoints" / "last.safetensors")
    assert contents["progress"]["processes"] == 2 and contents["progress"]["step"] == 12
    return folder / "run"


@pytest.mark.slow
def test_what_two_processes_began_one_ends(undisturbed, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    assert train(compose.compose("train", [f"resume={tmp_path / 'run'}"]), tmp_path / "run", frozenset({"resume"})) == 0
    assert_same_to_rounding(undisturbed, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")["progress"]["processes"] == 2


@pytest.mark.slow  # what one began and two end is quick
def test_what_two_processes_began_three_end(undisturbed, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    statuses, said, complaints = together(3, tmp_path, "resume=run")
    assert statuses == [0, 0, 0] and not complaints
    assert "processes   3 × 66 to 67 images = batches of 200\n" in said
    assert_same_to_rounding(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_what_one_process_began_two_end(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", loop.step)  # put back what this replaces
        _disturb(WHATS["SIGINT"], 11, True)
        settings = compose.compose("train", [*SMALL, f"batch_size={BATCH}"])
        assert train(settings, tmp_path / "run") == 130
    statuses, _, complaints = together(2, tmp_path, "resume=run")
    assert statuses == [0, 0] and not complaints
    assert_same_to_rounding(undisturbed, tmp_path / "run")


@pytest.mark.slow
def test_with_fewer_images_than_processes_some_take_part_with_none(tmp_path):
    rng = np.random.default_rng(0)
    sizes = {"train": 7, "valid": 2, "test": 1}
    np.savez(tmp_path / "x.npz", **{k: rng.integers(0, 2, (n, 6, 5), dtype=np.uint8) for k, n in sizes.items()})
    few = ["dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}", "ema_decay=0.9", "clip_grad_norm=1"]
    settings = [word for word in SMALL if "binarize" not in word]
    whole = compose.compose("train", [*settings, *few, "batch_size=6"])
    assert train(whole, tmp_path / "alone") == 0
    statuses, _, complaints = together(3, tmp_path, *settings, *few, "batch_size=2", "hydra.run.dir=run")
    assert statuses == [0, 0, 0] and not complaints
    assert_same_to_rounding(tmp_path / "alone", tmp_path / "run")


def test_an_objectives_own_module_is_trained_by_all_as_by_one(tmp_path):
    """It follows the mean ELBO of the whole batch, and has Adam, which sees a gradient's size again in its steps."""
    own = ["objective._target_=tests.support.objectives.Balanced", "epochs=2"]
    overridden = frozenset({"objective._target_"})
    alone_at = tmp_path / "alone"
    settings = compose.compose("train", [*SMALL, f"batch_size={BATCH}", *own])
    assert train(settings, alone_at, overridden) == 0
    statuses, _, complaints = together(2, tmp_path, *TWO, *own)
    assert statuses == [0, 0] and not complaints
    assert_same_to_rounding(alone_at, tmp_path / "run")
    a, b = (
        checkpoint.load(path / "checkpoints" / "last.safetensors")["module"] for path in (alone_at, tmp_path / "run")
    )
    torch.testing.assert_close(a["weights"]["weight"], b["weights"]["weight"], rtol=1e-5, atol=0)
    moments = [each["optimizer"]["state"][0]["exp_avg"] for each in (a, b)]
    torch.testing.assert_close(*moments, rtol=1e-5, atol=0)


def test_a_killed_process_ends_all_and_the_run_goes_on_from_its_last_checkpoint(tmp_path):
    statuses, _, complaints = together(2, tmp_path, *TWO, extra=("killed", 12, 1))
    assert statuses == [1, -signal.SIGKILL]
    assert complaints.startswith("vae-train: error: another of the 2 processes has ended")
    assert complaints.count("\n") == 1 and f"resume={tmp_path / 'run'} goes on" in complaints
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.safetensors")["progress"]["epoch"] == 1


@pytest.mark.slow
def test_an_error_in_one_process_is_said_by_it_and_ends_all(tmp_path):
    statuses, _, complaints = together(2, tmp_path, *TWO, extra=("failing", 12, 1))
    assert statuses == [1, 1]
    first, second = sorted(complaints.splitlines())
    assert first.startswith("vae-train: error: another of the 2 processes has ended")
    assert second.startswith("vae-train: rank 1: error: out of memory: choose a smaller batch_size")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


@pytest.mark.slow
def test_what_all_refuse_is_said_once_and_makes_nothing(tmp_path):
    for words, complaint in (
        (["-m", "latent_dim=2,3"], "-m: a sweep trains with one process each"),
        (
            ["objective=beta_tc", "hydra.run.dir=run"],
            "objective=beta_tc cannot be divided among 2 processes: the total",
        ),
    ):
        statuses, _, complaints = together(2, tmp_path, *words)
        assert statuses == [1, 1]
        assert complaints.startswith(f"vae-train: error: {complaint}") and complaints.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


@pytest.mark.slow
@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this processor may not count them as 0")
@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_is_set_up_for_computing(rank, tmp_path):
    statuses, *_ = together(2, tmp_path, *TWO, "epochs=1", extra=("noting how tiny numbers count", 1, rank))
    assert statuses == [0, 0] and (tmp_path / "tiny").read_text() == "0.0"


@pytest.mark.slow
def test_torchrun_starts_it(tmp_path):
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "vae_cli", "train"]
    done = subprocess.run([*call, *SMALL, "epochs=0"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert len(list((tmp_path / "outputs" / "digits").iterdir())) == 1
    assert done.stdout.count("run         ") == done.stdout.count("test        ") == 1
