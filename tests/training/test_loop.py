"""The loop: how a run diverges, stops early, saves and chooses its best weights."""

import json
import math
import time

import numpy as np
import pytest
import torch

from tests.support.training import elbo_on_test, lines, settings, trained
from vae_cli.build import parts
from vae_cli.data import DataFacts
from vae_cli.data.batches import pixels
from vae_cli.errors import TrainingError
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training.run import run as train


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
    best, last = (checkpoint.load(tmp_path / "checkpoints" / f"{name}.safetensors") for name in ("best", "last"))
    assert summary["test"]["elbo"] == elbo_on_test(best, best["model"]) != elbo_on_test(last, last["model"])
    assert (lines(tmp_path, "test")[0]["epoch"], lines(tmp_path, "test")[0]["step"]) == (2, 24)


def diverging(directory, *overrides):
    with pytest.raises(TrainingError) as caught:
        train(settings(*overrides), directory)
    summary = json.loads((directory / "summary.json").read_text())
    assert summary["status"] == "failed" and summary["error"] == str(caught.value)
    assert "\n" not in str(caught.value)
    kept = checkpoint.load(directory / "checkpoints" / "last.safetensors")
    assert all(v.isfinite().all() for v in kept["model"].values())
    return str(caught.value)


def test_a_diverging_run_fails_and_keeps_the_last_good_weights(tmp_path):
    assert "optimizer.lr" in diverging(tmp_path, "optimizer=sgd", "optimizer.lr=1e30", "epochs=9")


def test_weights_that_overflow_are_never_saved(tmp_path):
    message = diverging(
        tmp_path, "optimizer=sgd", "optimizer.lr=1e38", "epochs=1", "batch_size=1417", "dataset.validation=0"
    )
    assert "weight is no longer finite" in message or "not finite" in message


def test_early_stopping_ends_a_run_that_no_longer_improves(tmp_path):
    summary = trained(tmp_path, "early_stopping=2", "optimizer.lr=0", "epochs=30")
    assert summary["best_epoch"] == 1 and summary["epochs"] == 3


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
    assert checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")["progress"]["epoch"] == 1


def test_early_stopping_waits_for_a_validation(tmp_path):
    summary = trained(tmp_path, "early_stopping=2", "log_every=3", "optimizer.lr=0", "epochs=30")
    assert summary["best_epoch"] == 3 and summary["epochs"] == 6
    assert [line["epoch"] for line in lines(tmp_path, "validation")] == [3, 6]


def test_no_epoch_counts_as_the_best_while_beta_grows_and_then_the_loss_decides(tmp_path):
    summary = trained(tmp_path, "epochs=6", "objective.beta=8", "objective.warmup_epochs=3", "optimizer.lr=0.01")
    losses = {line["epoch"]: line["loss"] for line in lines(tmp_path, "validation")}
    assert summary["best_epoch"] == min((3, 4, 5, 6), key=lambda epoch: losses[epoch])
    assert summary["validation"]["loss"] == losses[summary["best_epoch"]]


def test_an_epoch_of_the_warm_up_counts_if_that_is_asked_for_and_early_stopping_waits_for_its_end(tmp_path):
    settings = ["objective.warmup_epochs=4", "objective.select_in_warmup=true", "early_stopping=2", "optimizer.lr=0"]
    summary = trained(tmp_path, "epochs=30", *settings)
    assert (summary["best_epoch"], summary["epochs"]) == (1, 6)


def test_a_warm_up_longer_than_the_run_selects_nothing_and_the_last_weights_count(tmp_path):
    summary = trained(tmp_path, "epochs=2", "objective.warmup_epochs=9", "early_stopping=1")
    assert (summary["best_epoch"], summary["epochs"]) == (None, 2)
    assert not (tmp_path / "checkpoints" / "best.safetensors").exists()
    assert lines(tmp_path, "test")[0]["epoch"] == 2


def test_a_residual_scale_is_the_training_residuals_at_the_end_of_a_short_run(tmp_path):
    """The residual is computed here with NumPy from the network's own outputs."""
    trained(tmp_path, "epochs=1", "likelihood=normal", "likelihood.scale=residual", "optimizer.lr=0.01")
    contents = checkpoint.load(tmp_path / "checkpoints" / "last.safetensors")
    model = parts.model(contents["config"], DataFacts.of(contents["data"]), trusted=())
    model.load_state_dict(contents["model"])
    train_split = parts.dataset(contents["config"]).splits().train
    x = pixels(train_split, slice(None), torch.device("cpu"))
    with torch.no_grad():
        q, squares = model.encode(x), []
        for seed in range(20):
            noise = torch.randn(1, *q.mean.shape, generator=torch.Generator().manual_seed(seed))
            squares.append((model.decode(q.mean + q.variance.sqrt() * noise[0]).mean - x).numpy() ** 2)
    residual = np.sqrt(np.mean(squares))
    assert float(model.likelihood.log_scale.exp()) == pytest.approx(residual, rel=5e-3)


@pytest.mark.parametrize("likelihood", ["normal", "laplace", "discretized_logistic"])
def test_constant_images_begin_and_end_at_a_sensible_bound(likelihood, tmp_path):
    np.savez(tmp_path / "gray.npz", train=np.full((40, 1, 8, 8), 100, np.uint8))
    data = ["dataset=arrays", f"dataset.path={tmp_path / 'gray.npz'}", f"likelihood={likelihood}"]
    trained(tmp_path / "run", *data, "epochs=3")
    elbos = [line["elbo"] for line in lines(tmp_path / "run", "train")]
    assert elbos[0] > -1.5 * 64 * math.log(256) and elbos[0] < elbos[1] < elbos[2]
