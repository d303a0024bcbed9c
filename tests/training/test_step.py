"""Steps with gradients that are not finite or too large."""

import math

import pytest
import torch

from tests.support.training import lines, trained
from vae_cli.errors import TrainingError
from vae_cli.optimizers import Muon
from vae_cli.training import loop
from vae_cli.training.step import gradient_norm, step_if_finite


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
    with pytest.raises(
        TrainingError, match=r"above skip_grad_norm=0.001, 20 steps in a row.* try a larger skip_grad_norm"
    ):
        trained(tmp_path / "all", "skip_grad_norm=1e-3")


OPTIMIZERS = {
    "Adam": lambda parameters: torch.optim.Adam(parameters, 0.1, fused=True),
    "AdamW": lambda parameters: torch.optim.AdamW(parameters, 0.1, weight_decay=0.3),
    "SGD": lambda parameters: torch.optim.SGD(parameters, 0.1, momentum=0.9, weight_decay=0.3),
    "RMSprop": lambda parameters: torch.optim.RMSprop(parameters, 0.1, momentum=0.9),
    "Muon": lambda parameters: Muon(parameters, lr=0.1, weight_decay=0.3),
}
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_muon if name == "Muon" else []) for name in OPTIMIZERS]
)
def test_a_step_that_a_device_finds_not_finite_changes_neither_weights_nor_momentum(name):
    """The verdict is a tensor, as on a GPU; a good step is that of the optimizer bit for bit."""

    def stepped(verdicts):
        torch.manual_seed(0)
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in ((4, 3), (5,), (2, 3, 3, 3))]
        optimizer = OPTIMIZERS[name](parameters)
        for verdict in verdicts:
            for parameter in parameters:
                parameter.grad = parameter.detach() * 0.5 if bool(verdict) else torch.full_like(parameter, math.nan)
            step_if_finite(optimizer, parameters, verdict)
        assert all(parameter.grad is None for parameter in parameters)
        state = [value for each in optimizer.state.values() for value in each.values()]
        return [*parameters, *(value for value in state if isinstance(value, torch.Tensor))]

    good, bad = torch.tensor(True), torch.tensor(False)
    alone = stepped([True, True, True])
    assert len(alone) > 3
    for verdicts in ([good, good, good], [good, bad, good, bad, bad, good], [True, False, True, False, True]):
        torch.testing.assert_close(stepped(verdicts), alone, rtol=0, atol=0)
    torch.testing.assert_close(stepped([bad, bad])[:3], stepped([])[:3], rtol=0, atol=0)
