"""Warnings about a training that is over, from its numbers and from real runs that went wrong."""

import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tests.support.training import lines, settings, trained
from vae_cli.build import parts
from vae_cli.data import DataFacts
from vae_cli.training import diagnosis, outcome
from vae_cli.training.outcome import Outcome


def chosen(*overrides):
    """A config as a training has it, with every `auto` replaced."""
    return parts.with_choices(settings(*overrides), DataFacts("mine", (1, 8, 8), "binary", 0, 1000))


def curve(*values):
    return list(enumerate(map(float, values), start=1))


@pytest.fixture(scope="module")
def fine():
    """A training without fault."""
    config = chosen("epochs=6", "latent_dim=16")
    curves = {"train": curve(-9, -8, -7, -6, -5, -4), "validation": curve(-10, -9, -8, -7, -6.5, -6)}
    return Outcome(
        config,
        Path("runs/my run"),
        5000,
        6,
        "image",
        -355.0,
        64,
        {"elbo": -6.0, "kl": 3.0},
        -5.0,
        "bound",
        curves,
        best_epoch=6,
        units=16,
    )


FAULTS = {
    "diverged: the test ELBO is -93,084 .random pixels have -355.": {
        "test": {"elbo": -93_084.0, "kl": 1.0},
        "train_elbo": -9e9,
    },
    "diverged: the test ELBO is -93,084 .-1,454 nats a pixel.": {
        "test": {"elbo": -93_084.0, "kl": 1.0},
        "train_elbo": -9e9,
        "uniform": None,
    },
    "diverged: the test ELBO is nan": {
        "test": {"elbo": float("nan"), "kl": 1.0},
        "train_elbo": float("nan"),
    },
    "diverged after a good start: the training bound was -4.0 in epoch 3 and -50.0 at the end": {
        "curves": {"train": curve(-9, -8, -4, -50)}
    },
    "12 of 5,000 steps were skipped": {"skipped": 12},
    "level z3 has a KL under 0.01 nats: the model does as well without it; to use it try objective.warmup_epochs=2": {
        "units": 3,
        "dead": 1,
        "is_hierarchy": True,
        "dead_levels": ("z3",),
    },
    "2 of 5 levels, z4, z5, have a KL under 0.01 nats: the model does as well without them; to use them try": {
        "units": 5,
        "dead": 2,
        "is_hierarchy": True,
        "dead_levels": ("z4", "z5"),
    },
    "posterior collapse: 2 of 2 levels have a KL under 0.01 nats; .* or smaller widths or channels of the model": {
        "units": 2,
        "dead": 2,
        "is_hierarchy": True,
        "dead_levels": ("z1", "z2"),
    },
    "too few steps: 60 in all": {"steps": 60},
    "posterior collapse: 16 of 16 latent dimensions": {"dead": 16},
    "posterior collapse: all reconstructions are alike": {"likeness": 0.001},
    "posterior collapse: 1 of 16 .* all reconstructions are alike": {"dead": 1, "likeness": 0.001},
    "13 of 16 latent dimensions have a KL under 0.01 nats: latent_dim=3 would do": {"dead": 13},
    "13 of 16 latent dimensions hardly depend on the image": {"dead": 13, "is_kl_known": False},
    "overfitting: the validation loss was best in epoch 2 .7.0. and is 9.0 in epoch 6, while training gained 4.0": {
        "selects_by": "loss",
        "curves": {"train": curve(-9, -8, -7, -6, -5, -4), "validation": curve(-10, -7, -7.5, -8, -8.5, -9)},
    },
    "overfitting: the validation bound was best in epoch 2 .-7.0. and is -9.0 in epoch 6, while training gained 4.0": {
        "curves": {"train": curve(-9, -8, -7, -6, -5, -4), "validation": curve(-10, -7, -7.5, -8, -8.5, -9)}
    },
    "no epoch was selected": {"best_epoch": None},
    "the test ELBO lies 0.5 standard deviations of one image below": {"split_gap": (-0.5, -9.0)},
    "samples are far worse than reconstructions: .* 7.5 nats .*checkpoint='runs/my run' sampler=gmm.*prior=flow": {
        "prior_gap": 7.5
    },
    "checkpoint='runs/my run' sampler=gmm$": {"prior_gap": 7.5, "is_prior_learned": True},
    "all test images are the same": {"is_constant": True, "dead": 16},
    "diverged: the test ELBO is -400": {"test": {"elbo": -400.0, "kl": 1.0}, "train_elbo": -399.0},
    "scale is at its limit for 100%": {"scale_at_bound": 1.0},
}


@pytest.mark.parametrize("words", FAULTS)
def test_a_fault_has_one_line_with_its_numbers_and_what_to_try(words, fine):
    (text,) = diagnosis.warnings(replace(fine, **FAULTS[words]))
    assert re.search(words, text) and "\n" not in text
    assert "try" in text


@pytest.mark.parametrize(
    "innocent",
    [
        {},
        {"dead": 11},
        {"steps": 0},
        {"curves": {"train": curve(-16700, -16600, -16500), "validation": curve(-16646, -16645, -16655)}},
        {"uniform": None, "test": {"elbo": -44_032.0, "kl": 1.0}},
        {"curves": {"train": curve(-60, -20, 9.8, 4.9, 8, 9), "validation": curve(-61, -21, 8, 4, 7, 9)}},
        {"curves": {"train": curve(*range(-9, 91)), "validation": curve(*[-102.03, -102, *[-102.03, -102.02] * 49])}},
        {"steps": 500},
        {"split_gap": (0.5, 3.0)},
        {"split_gap": (0.1, 30.0)},
        {"best_epoch": None, "is_validated": False},
        {"curves": {"train": curve(-9, -8, -7, -6), "validation": curve(-9, -8, -8.01, -8.02)}},
        {"curves": {"train": curve(-9, -5, -5.2, -5.1), "validation": curve(-9, -6, -6.2, -6.1)}},
    ],
)
def test_a_training_without_that_fault_has_no_line(innocent, fine):
    assert diagnosis.warnings(replace(fine, **innocent)) == []


DEAD_LEVEL = {"units": 5, "dead": 1, "is_hierarchy": True, "dead_levels": ("z5",)}


@pytest.mark.parametrize("beta", ["4", "[1,1,1,1,2]", "[3]"])
def test_a_beta_above_1_is_named_as_the_cause_of_a_dead_level_one_for_all_or_for_each(beta, fine):
    config = chosen("model=ladder", f"objective.beta={beta}")
    (text,) = diagnosis.warnings(replace(fine, config=config, **DEAD_LEVEL))
    assert text.endswith(f"to use it try objective.beta=1 in place of {beta.replace(',', ', ')}")


def test_a_dead_level_has_free_bits_of_its_own_and_a_dead_dimension_those_of_a_dimension(fine):
    (of_level,) = diagnosis.warnings(replace(fine, config=chosen("model=ladder"), **DEAD_LEVEL))
    (of_dimension,) = diagnosis.warnings(replace(fine, dead=13))
    assert of_level.endswith("to use it try objective.free_bits_by=level objective.free_bits=0.5")
    assert of_dimension.endswith("or objective.free_bits=0.1")


def test_skipped_steps_are_explained_by_the_limit_of_the_gradient_only_where_there_is_one(fine):
    (text,) = diagnosis.warnings(replace(fine, skipped=12))
    assert "was not finite; try optimizer.lr=" in text and "skip_grad_norm" not in text
    (text,) = diagnosis.warnings(replace(fine, skipped=12, config=chosen("skip_grad_norm=300")))
    assert "not finite, or its norm was above skip_grad_norm=300; try a larger skip_grad_norm or optimizer.lr=" in text


def test_only_settings_that_the_objective_has_are_named(fine):
    config = chosen("objective=iwae", "mc_samples=2")
    (text,) = diagnosis.warnings(replace(fine, config=config, units=config["latent_dim"], dead=config["latent_dim"]))
    assert "objective." not in text


@pytest.mark.parametrize(("mean", "std"), [(0.0, 1.0), (3.0, 0.5), (0.0, 4.0)])
def test_the_gap_between_codes_and_prior_is_their_kl_divergence_in_closed_form(mean, std, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    train, test = (mean + std * torch.randn(4000, 3, generator=generator) for _ in range(2))
    monkeypatch.setattr(outcome.latent_codes, "draws", lambda *_: train)
    standard = torch.distributions.Independent(torch.distributions.Normal(torch.zeros(3), torch.ones(3)), 1)
    state = SimpleNamespace(
        model=SimpleNamespace(latent_prior=lambda y: standard), config={"seed": 0}, device=torch.device("cpu")
    )
    codes = SimpleNamespace(draws=lambda *_: test, labels=None)
    data = SimpleNamespace(train=SimpleNamespace(spread=lambda _: None))
    expected = 3 * (0.5 * (std**2 + mean**2 - 1) - np.log(std))
    assert outcome._prior_gap(state, data, codes) == pytest.approx(expected, rel=0.1, abs=0.1)


def warnings_of(directory, *overrides):
    summary = trained(directory, *overrides)
    assert summary["status"] == "completed"
    return summary["warnings"]


def test_a_collapsed_and_starved_run_says_both_and_counts_its_active_units(tmp_path, capsys):
    found = warnings_of(tmp_path, "objective.beta=100", "epochs=6")
    assert [text.partition(":")[0] for text in found] == ["too few steps", "posterior collapse"]
    assert "3 of 3 latent dimensions" in found[1] and "72 in all" in found[0]
    summary = json.loads((tmp_path / "summary.json").read_text())
    (line,) = lines(tmp_path, "test")
    assert summary["test"]["active_units"] == line["active_units"] == 0
    assert len(line["kl_per_dim"]) == 3 and sum(line["kl_per_dim"]) == pytest.approx(line["kl"], abs=1e-4)
    printed = capsys.readouterr().out
    assert "0 of 3 dimensions are active" in printed and printed.count("posterior collapse") == 1


@pytest.mark.parametrize("rate", [10, 1000])
def test_a_rate_far_too_large_ends_completed_with_a_warning_that_names_a_smaller_one(rate, tmp_path):
    (text,) = warnings_of(tmp_path, f"optimizer.lr={rate}", "epochs=3")
    assert text.startswith("diverged") and "optimizer.lr=0.001" in text


def test_test_images_of_another_kind_are_told_from_validations(tmp_path):
    generator = np.random.default_rng(0)
    dark, light = (generator.integers(low, low + 30, (300, 1, 4, 4)).astype(np.uint8) for low in (0, 200))
    np.savez(tmp_path / "two.npz", train=dark, test=light)
    found = warnings_of(tmp_path / "run", "dataset=arrays", f"dataset.path={tmp_path / 'two.npz'}", "epochs=40")
    assert any("standard deviations of one image below validation's" in text for text in found)


def test_a_large_beta_is_named_as_the_cause_of_a_collapse_before_anything_else(fine):
    (text,) = diagnosis.warnings(replace(fine, config=chosen("objective.beta=100", "latent_dim=16"), dead=16))
    assert "try objective.beta=1 in place of 100, more epochs" in text


def test_few_steps_are_the_only_reason_that_a_model_that_has_just_begun_hears(fine):
    begun = replace(
        fine, steps=12, prior_gap=40.0, curves=FAULTS[next(w for w in FAULTS if "loss was best" in w)]["curves"]
    )
    assert [text.partition(":")[0] for text in diagnosis.warnings(begun)] == ["too few steps"]


@pytest.mark.parametrize(("images", "is_said"), [(5, False), (40, True)])
def test_images_that_are_all_the_same_are_said_to_be_so_and_one_test_image_is_not(images, is_said, tmp_path):
    np.savez(tmp_path / "gray.npz", train=np.full((images, 1, 4, 4), 100, np.uint8))
    found = warnings_of(tmp_path / "run", "dataset=arrays", f"dataset.path={tmp_path / 'gray.npz'}", "epochs=1")
    assert any("all test images are the same" in text for text in found) == is_said


def test_a_hierarchy_without_silent_levels_hears_nothing_and_of_many_some_are_named(fine):
    assert diagnosis.warnings(replace(fine, is_hierarchy=True, units=5)) == []
    names = tuple(f"z{number}" for number in range(3, 12))
    (text,) = diagnosis.warnings(replace(fine, is_hierarchy=True, units=11, dead=9, dead_levels=names))
    assert text.startswith("9 of 11 levels, z3, z4, z5, z6, z7, z8, …, have a KL under 0.01 nats")
