"""Several processes train one model: the same numbers as one process, one voice, and one end.

Most trainings here are forked from a server that has imported everything once, with the variables that torchrun sets.
"""

import json
import math
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
from vae_cli.build import parts
from vae_cli.build.device import choose_device
from vae_cli.config import compose
from vae_cli.data import DataFacts, Split
from vae_cli.data.batches import Batches
from vae_cli.distributed import collectives
from vae_cli.distributed.ranks import Rank, rank_from_environment
from vae_cli.errors import ConfigError
from vae_cli.evaluation.bounds import evaluate
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
    contents = checkpoint.load(folder / "run" / "checkpoints" / "last.pt")
    assert contents["progress"]["processes"] == 2 and contents["progress"]["step"] == 12
    return folder / "run"


def test_what_two_processes_began_one_ends(undisturbed, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    assert train(compose.compose("train", [f"resume={tmp_path / 'run'}"]), tmp_path / "run", frozenset({"resume"})) == 0
    assert_same_to_rounding(undisturbed, tmp_path / "run")
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["processes"] == 2


def test_what_two_processes_began_three_end(undisturbed, stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "run")
    statuses, said, complaints = together(3, tmp_path, "resume=run")
    assert statuses == [0, 0, 0] and not complaints
    assert "processes   3 × 66 to 67 images = batches of 200\n" in said
    assert_same_to_rounding(undisturbed, tmp_path / "run")


def test_what_one_process_began_two_end(undisturbed, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(loop, "step", loop.step)  # put back what this replaces
        _disturb(WHATS["SIGINT"], 11, True)
        settings = compose.compose("train", [*SMALL, f"batch_size={BATCH}"])
        assert train(settings, tmp_path / "run") == 130
    statuses, _, complaints = together(2, tmp_path, "resume=run")
    assert statuses == [0, 0] and not complaints
    assert_same_to_rounding(undisturbed, tmp_path / "run")


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


def test_a_killed_process_ends_all_and_the_run_goes_on_from_its_last_checkpoint(tmp_path):
    statuses, _, complaints = together(2, tmp_path, *TWO, extra=("killed", 12, 1))
    assert statuses == [1, -signal.SIGKILL]
    assert complaints.startswith("vae-train: error: another of the 2 processes has ended")
    assert complaints.count("\n") == 1 and f"resume={tmp_path / 'run'} goes on" in complaints
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"
    assert checkpoint.load(tmp_path / "run" / "checkpoints" / "last.pt")["progress"]["epoch"] == 1


def test_an_error_in_one_process_is_said_by_it_and_ends_all(tmp_path):
    statuses, _, complaints = together(2, tmp_path, *TWO, extra=("failing", 12, 1))
    assert statuses == [1, 1]
    first, second = sorted(complaints.splitlines())
    assert first.startswith("vae-train: error: another of the 2 processes has ended")
    assert second.startswith("vae-train: rank 1: error: out of memory: choose a smaller batch_size")
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "failed"


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


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="this processor may not count them as 0")
@pytest.mark.parametrize("rank", [0, 1])
def test_every_process_is_set_up_for_computing(rank, tmp_path):
    statuses, *_ = together(2, tmp_path, *TWO, "epochs=1", extra=("noting how tiny numbers count", 1, rank))
    assert statuses == [0, 0] and (tmp_path / "tiny").read_text() == "0.0"


def test_torchrun_starts_it(tmp_path):
    call = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "-m", "vae_cli", "train"]
    done = subprocess.run([*call, *SMALL, "epochs=0"], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert len(list((tmp_path / "outputs" / "digits").iterdir())) == 1
    assert done.stdout.count("run         ") == done.stdout.count("test        ") == 1


@pytest.mark.parametrize(
    ("overrides", "what"),
    [
        (["objective=beta_tc"], "objective=beta_tc cannot be divided among 2 processes: the total correlation"),
        (["objective=info_vae"], "objective=info_vae cannot be divided among 2 processes: the MMD"),
        (["objective.free_bits=0.5"], "objective.free_bits is compared with a batch's mean KL"),
        (["objective.capacity=5"], "objective.capacity is compared with a batch's mean KL"),
    ],
)
def test_objectives_that_look_at_a_batch_as_a_whole_are_refused(overrides, what):
    settings = compose.compose("train", [*SMALL, *overrides, "likelihood=bernoulli"])
    facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
    model = parts.model(settings, facts)
    assert parts.objective(settings, model, facts, 1)
    with pytest.raises(ConfigError, match=what):
        parts.objective(settings, model, facts, 1, world_size=2)


def test_every_other_objective_is_the_mean_over_images():
    """What is not refused must give for a batch the mean of what it gives for each image, loss and gradient."""
    for overrides in (["objective=elbo", "objective.beta=3"], ["objective=iwae"], ["objective=dreg"]):
        settings = compose.compose("train", [*SMALL, *overrides, "likelihood=bernoulli", "mc_samples=3"])
        facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
        model = parts.model(settings, facts).double()
        objective = parts.objective(settings, model, facts, 1, world_size=2)
        x, drawn = (torch.rand(5, 1, 4, 4) < 0.5).double(), torch.randn(3, 5, 3).double()
        parameters = list(model.parameters())
        whole = torch.autograd.grad(objective(model, (x, None), drawn, 0).loss, parameters)
        both = [
            torch.autograd.grad(objective(model, (x[i], None), drawn[:, i], 0).loss, parameters)
            for i in (slice(0, 2), slice(2, 5))
        ]
        for all_, two, three in zip(whole, *both):
            torch.testing.assert_close(all_, 0.4 * two + 0.6 * three)


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_the_parts_of_every_batch_are_the_batch(count):
    values = torch.arange(10, dtype=torch.uint8).mul(20)[:, None, None, None].expand(10, 1, 9, 9).contiguous()
    split = Split(values, torch.arange(10), 255.0, dynamic=True)
    whole = list(Batches(split, 4, seed=0).epoch(3))
    each = [Batches(split, 4, 0, rank=rank, world_size=count) for rank in range(count)]
    parts = [list(batches.epoch(3)) for batches in each]
    assert [len(found[0][1][0]) for found in parts] == [batches.whole for batches in each]
    for number, (x, y) in whole:
        weights = [batches.weight(number) for batches in each]
        assert sum(weights) == pytest.approx(1)
        taking = [found[number][1] for found, weight in zip(parts, weights) if weight > 0]
        assert torch.equal(torch.cat([part for part, _ in taking]), x)
        assert torch.equal(torch.cat([part for _, part in taking]), y)


@pytest.mark.parametrize(("images", "count"), [(600, 2), (601, 3), (251, 4), (2, 3)])
def test_an_evaluation_in_parts_counts_every_image_once(images, count, monkeypatch):
    """The sums of the parts, put together by hand, against the whole."""
    split = Split((torch.rand(images, 1, 4, 4) < 0.5).to(torch.uint8), None, 1.0)
    settings = compose.compose("train", [*SMALL, "likelihood=bernoulli"])
    facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
    model = parts.model(settings, facts)
    objective = parts.objective(settings, model, facts, 1)
    whole = evaluate(model, objective, split, seed=5)
    sums, counted = [], []

    def note(values):
        (counted if values.ndim == 0 else sums).append(values.clone())
        return values

    monkeypatch.setattr(collectives, "all_reduce", note)
    for rank in range(count):
        evaluate(model, objective, split, 5, rank=Rank(rank, count))
    assert sum(counted) == images
    found = sum(sums) / images
    assert found.tolist() == pytest.approx([whole[key] for key in ("elbo", "bound", "reconstruction", "kl", "loss")])


def test_a_parameter_has_a_gradient_where_any_process_has_one(monkeypatch):
    """Two processes by hand: the first has no gradient of b and d, the second none of c and d; a third has nothing."""
    messages = []

    def add(values):
        messages.append(values.clone())
        return sum(messages) if len(messages) == 3 else values

    monkeypatch.setattr(collectives, "all_reduce", add)
    monkeypatch.setattr(collectives, "is_connected", lambda: True)

    def parameters(**gradients):
        found = {name: torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for name in "abcd"}
        for name, value in gradients.items():
            found[name].grad = torch.full((2,), float(value), dtype=torch.float64)
        return list(found.values())

    sums = torch.tensor([5.0, 7.0])
    collectives.all_reduce_gradients(parameters(a=8, c=4), sums, 0.25)
    collectives.all_reduce_gradients(parameters(a=math.nan, d=math.nan), torch.tensor([math.nan, 1]), 0.0)
    own = parameters(a=4, b=4)
    pooled = collectives.all_reduce_gradients(own, sums, 0.75)
    assert pooled.tolist() == [10, 14] and pooled.dtype == sums.dtype
    assert [None if p.grad is None else p.grad.tolist() for p in own] == [[5, 5], [3, 3], [1, 1], None]


def test_a_process_alone_has_no_others():
    assert rank_from_environment() == Rank() and Rank().is_main and Rank().share(5) == slice(0, 5)
    assert collectives.all_reduce_max(3, 4) == (3, 4) and collectives.broadcast("x") == "x"


@pytest.mark.parametrize("rank", ["2", "x", "-1"])
def test_variables_that_make_no_sense_are_refused(rank, monkeypatch):
    for name, value in (("RANK", rank), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=f"RANK={rank} WORLD_SIZE=2 in the environment"):
        rank_from_environment()


def test_a_device_of_its_own_for_every_process(monkeypatch):
    assert choose_device("cpu", Rank(1, 2, 1, 2)) == torch.device("cpu")
    with pytest.raises(ConfigError, match="device=cuda:0 cannot be shared by 2 processes; use device=cuda"):
        choose_device("cuda:0", Rank(0, 2, 0, 2))
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert choose_device("auto", Rank(5, 6, 1, 2)) == torch.device("cuda:1") and chosen == [1]
    with pytest.raises(ConfigError, match=r"3 processes on a machine with 2 GPU\(s\)"):
        choose_device("cuda", Rank(0, 3, 0, 3))
