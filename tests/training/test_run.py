"""Whole small trainings: what they leave, that they can be repeated bit for bit, and how they end when they fail."""

import json
import math
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import CheckpointError, ConfigError, TrainingError, UserError
from vae_cli.evaluation.bounds import evaluate
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training.ema import EMA
from vae_cli.training.run import run as train
from vae_cli.training.signals import StopSignals

SMALL = ["report=false", "epochs=2", "latent_dim=3", "sample_every=1", "device=cpu"]
CPU = torch.device("cpu")
NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]"]


def settings(*overrides):
    narrow = [] if any(o.startswith("encoder=") for o in overrides) else NARROW
    return compose.compose("train", [*SMALL, *narrow, *overrides])


def given(overrides):
    return frozenset(o.partition("=")[0].lstrip("+") for o in overrides)


def trained(directory, *overrides):
    assert train(settings(*overrides), directory, given(overrides)) == 0
    assert "could not be written" not in (directory / "train.log").read_text()
    return json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    trained(directory)
    return directory


@pytest.fixture(scope="module")
def arrays_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, **{k: rng.integers(0, 2, (n, 6, 5), dtype=np.uint8) for k, n in (("train", 70), ("test", 20))})
    return path


def lines(directory, split=None):
    found = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line for line in found if split in (None, line["split"])]


def test_a_run_leaves_the_documented_files(digits_run):
    expected = {"config.yaml", "metrics.jsonl", "summary.json", "train.log", "samples.png", "reconstructions.png"}
    expected |= {"checkpoints", "samples", "reconstructions", "tensorboard"}
    assert {p.name for p in digits_run.iterdir()} == expected
    assert sorted(p.name for p in (digits_run / "checkpoints").iterdir()) == ["best.pt", "last.pt"]
    for folder in ("samples", "reconstructions"):
        assert sorted(p.name for p in (digits_run / folder).iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    assert list((digits_run / "tensorboard").iterdir())


def test_metrics_have_a_line_per_epoch_and_split_and_the_test_once(digits_run):
    found = [(line["epoch"], line["split"]) for line in lines(digits_run)]
    assert found[:4] == [(1, "train"), (1, "validation"), (2, "train"), (2, "validation")]
    assert [split for _, split in found[4:]] == ["test"]
    for line in lines(digits_run):
        assert {"step", "elbo", "reconstruction", "kl", "bound", "loss"} <= line.keys()
        assert abs(line["reconstruction"] - line["kl"] - line["elbo"]) < 1e-3
    assert all(line["images_per_second"] > 0 for line in lines(digits_run, "train"))


def test_the_summary_holds_the_best_epoch_and_the_test_numbers(digits_run):
    summary = json.loads((digits_run / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["epochs"] == 2 and summary["error"] is None
    best = max(lines(digits_run, "validation"), key=lambda line: line["bound"])
    assert summary["best_epoch"] == best["epoch"]
    assert summary["validation"]["elbo"] == best["elbo"]
    assert summary["test"]["elbo"] == lines(digits_run, "test")[0]["elbo"]


def test_elbo(contents, weights):
    facts = DataFacts(**contents["data"])
    model = parts.model(contents["config"], facts, trusted=())
    model.load_state_dict(weights)
    data = parts.dataset(contents["config"]).splits()
    return evaluate(model, parts.objective(contents["config"], model, facts, 1), data.test, seed=0)["elbo"]


test_elbo.__test__ = False


def test_the_test_elbo_is_that_of_the_best_weights_and_not_of_the_last(tmp_path, monkeypatch):
    """The validation of epoch 2 of 4 is made to look best."""
    honest, calls = loop.evaluate, []

    def flattering(*arguments, **more):
        numbers = honest(*arguments, **more)
        calls.append(1)
        return numbers | {"bound": numbers["bound"] + 1e6 * (len(calls) == 2)}

    monkeypatch.setattr(loop, "evaluate", flattering)
    summary = trained(tmp_path, "epochs=4")
    assert summary["best_epoch"] == 2 and summary["epochs"] == 4
    best, last = (checkpoint.load(tmp_path / "checkpoints" / f"{name}.pt") for name in ("best", "last"))
    assert summary["test"]["elbo"] == test_elbo(best, best["model"]) != test_elbo(last, last["model"])
    assert (lines(tmp_path, "test")[0]["epoch"], lines(tmp_path, "test")[0]["step"]) == (2, 24)


def test_a_directory_with_a_training_in_it_is_left_alone(digits_run):
    before = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}
    with pytest.raises(UserError, match="holds a training already"):
        train(settings(), digits_run)
    assert before == {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}


def test_the_saved_config_names_the_likelihood_that_auto_chose(digits_run):
    text = (digits_run / "config.yaml").read_text()
    assert "vae_cli.distributions.DiscretizedLogisticLikelihood" in text and "auto\n" in text
    assert "_target_: auto" not in text


def test_checkpoints_hold_plain_data_under_the_documented_keys(digits_run):
    contents = torch.load(digits_run / "checkpoints" / "last.pt", weights_only=True)
    assert set(contents) == set(checkpoint.KEYS)
    assert contents["progress"]["epoch"] == 2 and contents["progress"]["step"] == 24
    assert contents["data"]["shape"] == (1, 8, 8) and contents["data"]["support"] == "levels256"
    assert not any(key.startswith("_orig_mod") for key in contents["model"])


def weights_of(directory, name="last"):
    return checkpoint.load(directory / "checkpoints" / f"{name}.pt")["model"]


def test_the_same_seed_gives_bitwise_the_same_weights_and_another_seed_does_not(digits_run, tmp_path):
    again, other = tmp_path / "again", tmp_path / "other"
    trained(again, "sample_every=0")  # pictures must not move the training's streams either
    trained(other, "seed=1")
    same = weights_of(digits_run)
    assert all(torch.equal(same[k], v) for k, v in weights_of(again).items())
    assert any(not torch.equal(same[k], v) for k, v in weights_of(other).items())


def test_evaluation_in_between_does_not_move_the_training(digits_run, tmp_path):
    trained(tmp_path, "log_every=2")
    assert all(torch.equal(weights_of(digits_run)[k], v) for k, v in weights_of(tmp_path).items())


def test_without_validation_the_last_weights_count(tmp_path):
    summary = trained(tmp_path, "dataset.validation=0")
    assert summary["best_epoch"] is None and summary["validation"] is None and summary["test"]["elbo"] < 0
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.pt"]
    assert not lines(tmp_path, "validation")


@pytest.mark.parametrize(
    "overrides",
    [
        ["encoder=conv", "decoder=conv", "encoder.channels=[4,8]", "decoder.channels=[8,4]"],
        ["encoder=resnet", "decoder=resnet", "encoder.channels=[4,8]", "decoder.channels=[8,4]"],
        ["posterior=full_normal", "mc_samples=3", "objective.kl=monte_carlo"],
        ["likelihood=normal", "scheduler=cosine", "scheduler.warmup_epochs=1", "optimizer=adamw"],
        ["likelihood=continuous_bernoulli", "optimizer=rmsprop", "scheduler=exponential"],
        ["dataset.binarize=dynamic", "ema_decay=0.9", "scheduler=multistep"],
        ["dataset.binarize=threshold", "objective.beta=2", "objective.warmup_epochs=1", "optimizer=sgd"],
        ["dataset.binarize=static", "clip_grad_norm=1", "optimizer=radam", "batch_size=100000", "epochs=12"],
        ["precision=bfloat16", "optimizer=adamax", "init_output_bias=false"],
        ["optimizer._target_=torch.optim.Adagrad"],
    ],
    ids=" ".join,
)
def test_every_choice_trains_and_improves(overrides, tmp_path):
    summary = trained(tmp_path, "epochs=4", *overrides)
    losses = [line["loss"] for line in lines(tmp_path, "train")]
    if "objective.warmup_epochs=1" in overrides:  # the loss itself grows with its weight
        losses = [-line["reconstruction"] for line in lines(tmp_path, "train")]
    assert losses[-1] < losses[0]
    assert math.isfinite(summary["test"]["elbo"])


def test_keys_of_a_replaced_class_are_dropped_and_named(tmp_path, capsys):
    trained(tmp_path, "optimizer._target_=torch.optim.Adagrad", "epochs=1")
    assert "dropped     optimizer.betas" in capsys.readouterr().out
    assert "betas" not in (tmp_path / "config.yaml").read_text()


def test_arrays_of_ones_own_train(arrays_file, tmp_path):
    summary = trained(tmp_path, "dataset=arrays", f"dataset.path={arrays_file}")
    assert summary["status"] == "completed"
    assert "BernoulliLikelihood" in (tmp_path / "config.yaml").read_text()


def test_pictures_are_grids_of_enlarged_digits_with_originals_above(digits_run):
    samples = Image.open(digits_run / "samples.png")
    assert samples.mode == "L" and samples.size == (8 * 58 + 2, 8 * 58 + 2)
    shown = np.asarray(Image.open(digits_run / "reconstructions.png"))
    first = shown[2 : 2 + 56 : 7, 2 : 2 + 56 : 7]
    x = parts.dataset(settings()).splits().test.images[0, 0]
    np.testing.assert_array_equal(first, x.numpy())


def diverging(directory, *overrides):
    with pytest.raises(TrainingError) as caught:
        train(settings(*overrides), directory)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["error"] == str(caught.value)
    assert "\n" not in str(caught.value)
    kept = checkpoint.load(directory / "checkpoints" / "last.pt")
    assert all(v.isfinite().all() for v in kept["model"].values())
    return str(caught.value)


def test_a_diverging_run_fails_and_keeps_the_last_good_weights(tmp_path):
    assert "optimizer.lr" in diverging(tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "epochs=9")


def test_weights_that_overflow_are_never_saved(tmp_path):
    message = diverging(
        tmp_path, "optimizer=sgd", "optimizer.lr=1e38", "epochs=1", "batch_size=1417", "dataset.validation=0"
    )
    assert "weight is no longer finite" in message or "not finite" in message


def test_a_gradient_that_is_not_finite_never_reaches_the_weights(monkeypatch, tmp_path):
    """Every fifth loss is made infinite: those steps are counted, and the weights stay finite and learn."""
    from vae_cli.objectives import ELBO

    plain, calls = ELBO.__call__, [0]

    def sometimes_infinite(self, model, batch, noise, step):
        bound = plain(self, model, batch, noise, step)
        calls[0] += model.training
        if model.training and calls[0] % 5 == 0:
            return type(bound)(bound.loss * math.inf, bound.bound, bound.elbo, bound.terms)
        return bound

    monkeypatch.setattr(ELBO, "__call__", sometimes_infinite)
    trained(tmp_path)
    train_lines = lines(tmp_path, "train")
    assert train_lines[-1]["skipped_steps"] == 4  # of 24 steps
    assert math.isfinite(train_lines[-1]["elbo"]) and train_lines[1]["elbo"] > train_lines[0]["elbo"]


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path):
    summary = trained(tmp_path, "early_stopping=2", "optimizer.lr=0", "epochs=30")
    assert summary["best_epoch"] == 1 and summary["epochs"] == 3


def test_a_signal_ends_the_run_after_the_step_with_a_checkpoint(tmp_path, monkeypatch):
    import os
    import signal

    at = loop.step

    def interrupting(state, *arguments):
        at(state, *arguments)
        if state.position.step == 15:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(loop, "step", interrupting)
    assert train(settings("epochs=5"), tmp_path) == 143
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "interrupted" and summary["epochs"] == summary["best_epoch"] == 1
    assert summary["validation"]["elbo"] < 0 and summary["test"] is None and summary["error"] is None
    progress = checkpoint.load(tmp_path / "checkpoints" / "last.pt")["progress"]
    assert (progress["epoch"], progress["batch"], progress["step"]) == (1, 3, 15)


def test_signal_handlers_are_put_back():
    import signal

    before = signal.getsignal(signal.SIGTERM)
    with StopSignals() as interruption:
        signal.raise_signal(signal.SIGTERM)
        assert interruption.received == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_likelihood_that_does_not_fit_the_data_is_refused_with_the_fix(tmp_path):
    for overrides, fix in (
        (["likelihood=bernoulli"], "set dataset.binarize=dynamic, or choose likelihood=discretized_logistic"),
        (["likelihood=discretized_logistic", "dataset.binarize=static"], "choose likelihood=bernoulli"),
        (["+likelihood.scale=0.1"], "likelihood=auto takes no keys"),
    ):
        with pytest.raises(ConfigError, match=fix):
            train(settings(*overrides), tmp_path)


def test_keys_a_class_does_not_take_are_refused_with_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="unknown key encoder.hiden: did you mean encoder.hidden"):
        train(settings("+encoder.hiden=[3]"), tmp_path, frozenset({"encoder.hiden"}))
    with pytest.raises(ConfigError, match="encoder.shape is set by the program"):
        train(settings("+encoder.shape=[3]"), tmp_path, frozenset({"encoder.shape"}))


# The parts of a training, alone


def test_an_average_of_weights_is_swapped_in_and_out():
    layer = torch.nn.Linear(2, 1)
    ema = EMA(layer, 0.5)
    start = layer.weight.detach().clone()
    layer.weight.data += 1
    ema.update(step=10**6)
    with ema.applied():
        torch.testing.assert_close(layer.weight, start + 0.5)
    torch.testing.assert_close(layer.weight, start + 1)


def test_a_checkpoint_of_the_averaged_weights_is_what_the_test_split_sees(tmp_path):
    trained(tmp_path, "ema_decay=0.9")
    contents = checkpoint.load(tmp_path / "checkpoints" / "best.pt")
    used = checkpoint.weights(contents)
    assert any(not torch.equal(used[k], contents["model"][k]) for k in used)
    assert used.keys() == contents["model"].keys()
    averaged, raw = (test_elbo(contents, weights) for weights in (used, contents["model"]))
    assert json.loads((tmp_path / "summary.json").read_text())["test"]["elbo"] == averaged != raw


def test_random_state_survives_a_checkpoint(tmp_path):
    import random

    torch.save(checkpoint.random_state(torch.device("cpu")), tmp_path / "r.pt")
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    checkpoint.restore_random_state(torch.load(tmp_path / "r.pt", weights_only=True), torch.device("cpu"))
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "foreign", "newer"])
def test_what_is_no_checkpoint_is_refused_in_one_line_that_names_it(damage, digits_run, tmp_path):
    path = tmp_path / "x.pt"
    good = (digits_run / "checkpoints" / "last.pt").read_bytes()
    if damage == "foreign":
        torch.save({"state_dict": {}}, path)
    elif damage == "newer":
        torch.save(checkpoint.load(digits_run / "checkpoints" / "last.pt") | {"version": 99}, path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": good[: len(good) // 2]}[damage])
    with pytest.raises(CheckpointError, match="x.pt") as caught:
        checkpoint.load(checkpoint.find(path))
    assert "\n" not in str(caught.value)


def test_random_damage_is_noticed_or_harmless(digits_run, tmp_path):
    path = tmp_path / "x.pt"
    good = (digits_run / "checkpoints" / "last.pt").read_bytes()
    whole = checkpoint.load(digits_run / "checkpoints" / "last.pt")
    rng, refused = np.random.default_rng(0), 0
    for number in range(100):
        damaged, at = bytearray(good), int(rng.integers(len(good)))
        if number % 4 == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif number % 4 == 1:
            damaged[at : at + 64] = rng.bytes(64)
        elif number % 4 == 2:
            damaged = damaged[:at]
        else:
            damaged[at:at] = b"x"
        path.write_bytes(damaged)
        try:
            found = checkpoint.load(path)
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.equal(found["model"][key], value) for key, value in whole["model"].items())
    assert refused > 80


def test_a_failing_write_leaves_the_old_checkpoint_and_no_litter(digits_run, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    contents = checkpoint.load(digits_run / "checkpoints" / "last.pt")
    checkpoint.save(path, contents)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda contents, file: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoint.save(path, contents)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_checkpoints_are_due_by_epochs_or_by_time():
    by_epochs, by_time = loop.SaveSchedule(2), loop.SaveSchedule("0.05 s")
    assert [by_epochs.ends_with(epoch) for epoch in (1, 2, 3, 4)] == [False, True, False, True]
    assert not by_epochs.time_is_up() and not by_time.ends_with(1) and not by_time.time_is_up()
    time.sleep(0.06)
    assert by_time.time_is_up() and not by_time.time_is_up()


def test_a_time_based_checkpoint_is_written_in_mid_epoch(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(loop.SaveSchedule, "time_is_up", lambda self: True)
    honest = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", lambda path, c: saved.append(c["progress"]["batch"]) or honest(path, c))
    trained(tmp_path, "epochs=1", "checkpoint_every=10min")
    assert set(range(1, 13)) <= set(saved)


def test_a_validation_that_is_not_finite_fails_the_run(tmp_path, monkeypatch):
    honest, calls = loop.evaluate, []

    def breaking(*arguments, **more):
        calls.append(1)
        return honest(*arguments, **more) | ({"bound": math.nan} if len(calls) == 2 else {})

    monkeypatch.setattr(loop, "evaluate", breaking)
    assert "the validation bound is nan after epoch 2" in diverging(tmp_path, "epochs=5")
    assert checkpoint.load(tmp_path / "checkpoints" / "last.pt")["progress"]["epoch"] == 1


def test_a_reader_that_goes_away_does_not_end_a_training(tmp_path):
    import subprocess
    import sys

    command = [sys.executable, "-m", "vae_cli", "train", *SMALL, *NARROW, "epochs=3", "hydra.run.dir=run"]
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    training.stdout.readline()
    training.stdout.close()
    training.wait()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


def test_numbers_too_small_for_full_precision_count_as_zero_in_every_thread():
    """A million products of 10⁻³⁰ and 10⁻¹⁰, shared among threads, in a process of its own."""
    code = (
        "from vae_cli.system import threads; threads.tune()\n"
        "import torch; torch.set_num_threads(2)\n"
        "x = torch.full((1_000_000,), 1e-30); y = torch.full((1_000_000,), 1e-10)\n"
        "assert 1e-30 * 1e-10 > 0 and float((x * y).abs().sum()) == 0 and int((x * y != 0).sum()) == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
