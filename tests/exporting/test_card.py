"""The model card: what was trained on what, its numbers and how they were measured, how to load it."""

import re

import pytest
import yaml

from tests.support.exporting import untrained
from vae_cli.exporting.card import card, run_of
from vae_cli.runs.reader import Run

SUMMARY = {
    "step": 7,
    "data": {"train": 1417, "validation": 200, "test": 180},
    "test": {"elbo": -20.25, "kl": 5.5, "reconstruction": -14.75, "active_units": 3},
}
EVALUATION = {
    "step": 7,
    "split": "test",
    "seed": 4,
    "num_importance_samples": 500,
    "checkpoint": "runs/digits/checkpoints/best.safetensors",
    "limit": None,
    "path": None,
    "log_likelihood": {"value": -19.5, "stderr": 0.25, "n": 180},
    "elbo": {"value": -20.25, "stderr": 0.3, "n": 180},
    "mse": {"value": 0.0123, "stderr": 0.001, "n": 180},
}


@pytest.fixture
def write(tmp_path):
    def of(summary=None, evaluation=None, license=None, *overrides):
        run = Run(tmp_path, "run")
        run.__dict__.update(summary=summary or {}, evaluation=evaluation or {})
        return card("owner/digits", license, untrained(*overrides), run, "samples.png")

    return of


def test_the_head_is_yaml_that_names_the_licence(write):
    head = yaml.safe_load(write(license="cc-by-4.0").split("---")[1])
    assert head["license"] == "cc-by-4.0" and head["library_name"] == "vae_cli" and "vae" in head["tags"]
    assert "license" not in yaml.safe_load(write().split("---")[1])


def test_numbers_have_standard_errors_and_say_how_they_were_measured(write):
    text = write(SUMMARY, EVALUATION)
    assert "| `log_likelihood` | -19.50 ± 0.25 | estimate of log p(x), nats per example |" in text
    assert "| `mse` | 0.0123 ± 0.001 |" in text
    assert "on the test split (180 images), with 500 draws of z per image and seed 4" in text


def test_without_an_evaluation_the_runs_own_numbers_are_said_to_have_no_errors(write):
    text = write(SUMMARY)
    assert "| `elbo` | -20.25 | evidence lower bound, nats per example |" in text
    assert "on the test split (180 images), with 1 draw of z per image. Standard errors are not known" in text


def test_numbers_of_other_weights_or_other_data_are_left_out(write):
    assert "They are not known" in write(SUMMARY | {"step": 8}, EVALUATION)
    assert "They are not known" in write()
    other = write(SUMMARY, EVALUATION | {"path": "/home/me/other.npz"})
    assert "log_likelihood" not in other and "/home" not in other
    for difference in ({"split": "validation"}, {"checkpoint": "runs/digits/tuned.safetensors"}, {"step": 6}):
        text = write(SUMMARY, EVALUATION | difference)
        assert "log_likelihood" not in text and "Measured at the end of the training on the test split" in text


def test_a_limit_of_the_evaluation_is_said(write):
    elbo = EVALUATION["elbo"] | {"n": 5}
    text = write(SUMMARY, EVALUATION | {"limit": 5, "elbo": elbo})
    assert "Measured by `vae-evaluate` on the first 5 images of the test split (limit=5), with 500 draws" in text


def test_only_a_runs_own_checkpoint_has_its_numbers(tmp_path):
    own = [tmp_path / "checkpoints" / name for name in ("best.safetensors", "last.safetensors")]
    others = [tmp_path / "checkpoints" / "tuned.safetensors", tmp_path / "tuned.safetensors"]
    assert [run_of(path).path for path in own] == [tmp_path] * 2
    assert [run_of(path) for path in (*others, tmp_path / "best.safetensors")] == [None] * 3
    text = card("owner/digits", None, untrained(), None, "samples.png")
    assert (
        "They are not known: the uploaded file is not a checkpoint that a run wrote" in text and "held out" not in text
    )


def test_the_data_and_the_settings_are_named(write):
    text = write(SUMMARY, None, None, "conditional=true", "dataset.binarize=threshold", "prior=vampprior")
    assert "A conditional variational autoencoder of 1x8x8 images, trained on `digits`" in text
    assert "- data set: `digits`, binary pixels, binarize=threshold" in text and "- labels: 0 to 9" in text
    assert "- held out: 200 validation, 180 test images" in text
    assert re.search(r"dataset=digits .*prior=vampprior likelihood=bernoulli .*conditional=true", text)
    assert 'vae_cli.load("hf://owner/digits")' in text and "checkpoint=hf://owner/digits" in text
