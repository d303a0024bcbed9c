"""Steps with gradients that are not finite."""

import math

from tests.support.training import lines, trained


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
