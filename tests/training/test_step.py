"""Steps with gradients that are not finite or too large."""

import math

import pytest

from tests.support.training import lines, trained
from vae_cli.errors import TrainingError
from vae_cli.training import loop
from vae_cli.training.step import gradient_norm


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


def test_steps_whose_gradient_is_larger_than_skip_grad_norm_are_skipped(monkeypatch, tmp_path):
    """Every fifth norm is made large."""
    trained(tmp_path / "plain")
    trained(tmp_path / "none", "skip_grad_norm=1e5")
    for split in ("train", "validation"):
        plain, none = (lines(tmp_path / name, split) for name in ("plain", "none"))
        assert [line["elbo"] for line in plain] == [line["elbo"] for line in none]
    calls = [0]

    def sometimes_large(gradients):
        calls[0] += 1
        return gradient_norm(gradients) + 1e6 * (calls[0] % 5 == 0)

    monkeypatch.setattr(loop, "gradient_norm", sometimes_large)
    trained(tmp_path / "some", "skip_grad_norm=1e5")
    assert lines(tmp_path / "some", "train")[-1]["skipped_steps"] == 4  # of 24 steps
    with pytest.raises(TrainingError, match=r"above skip_grad_norm, 20 steps in a row"):
        trained(tmp_path / "all", "skip_grad_norm=1e-3")
