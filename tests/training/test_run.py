"""Whole small trainings: what they leave, and that they can be repeated bit for bit."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.support.training import NARROW, SMALL, lines, settings, trained, weights_of
from vae_cli.errors import ConfigError
from vae_cli.training.run import run as train

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def arrays_file(tmp_path_factory):
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "x.npz"
    np.savez(path, **{k: rng.integers(0, 2, (n, 6, 5), dtype=np.uint8) for k, n in (("train", 70), ("test", 20))})
    return path


def test_a_run_leaves_the_documented_files(digits_run):
    expected = {"config.yaml", "metrics.jsonl", "summary.json", "train.log", "samples.png", "reconstructions.png"}
    expected |= {"checkpoints", "samples", "reconstructions", "tensorboard"}
    assert {p.name for p in digits_run.iterdir()} == expected
    assert sorted(p.name for p in (digits_run / "checkpoints").iterdir()) == ["best.safetensors", "last.safetensors"]
    for folder in ("samples", "reconstructions"):
        assert sorted(p.name for p in (digits_run / folder).iterdir()) == ["epoch_0001.png", "epoch_0002.png"]
    assert list((digits_run / "tensorboard").iterdir())


def test_metrics_have_a_line_per_epoch_and_split_and_the_test_once(digits_run):
    splits = [(line["epoch"], line["split"]) for line in lines(digits_run)]
    assert splits[:4] == [(1, "train"), (1, "validation"), (2, "train"), (2, "validation")]
    assert [split for _, split in splits[4:]] == ["test"]
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


def test_the_saved_config_names_the_likelihood_that_auto_chose(digits_run):
    text = (digits_run / "config.yaml").read_text()
    assert "vae_cli.distributions.DiscretizedLogisticLikelihood" in text and "auto\n" in text
    assert "_target_: auto" not in text


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
    assert [p.name for p in (tmp_path / "checkpoints").iterdir()] == ["last.safetensors"]
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


def test_arrays_of_ones_own_train(arrays_file, tmp_path):
    summary = trained(tmp_path, "dataset=arrays", f"dataset.path={arrays_file}")
    assert summary["status"] == "completed"
    assert "BernoulliLikelihood" in (tmp_path / "config.yaml").read_text()


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


@pytest.mark.slow
def test_a_reader_that_goes_away_does_not_end_a_training(tmp_path):
    command = [sys.executable, "-m", "vae_cli", "train", *SMALL, *NARROW, "epochs=3", "hydra.run.dir=run"]
    training = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE)
    training.stdout.readline()
    training.stdout.close()
    training.wait()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


@pytest.mark.parametrize(
    ("has_it", "typed", "is_said"),
    [(True, [], True), (False, [], False), (True, ["precision=float32"], False), (True, ["precision=bfloat16"], False)],
)
def test_bfloat16_is_proposed_where_the_processor_has_it_and_nothing_was_typed(
    has_it, typed, is_said, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("vae_cli.training.run.has_bfloat16", lambda device: has_it)
    trained(tmp_path, "epochs=0", *typed)
    assert ("speed       precision=bfloat16 may be faster" in capsys.readouterr().out) == is_said


@pytest.mark.parametrize("has_it", [False, True])
def test_float32_is_proposed_where_the_processor_has_no_bfloat16(has_it, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("vae_cli.training.run.has_bfloat16", lambda device: has_it)
    trained(tmp_path, "epochs=0", "precision=bfloat16")
    assert ("speed       precision=float32 is much faster" in capsys.readouterr().out) != has_it
