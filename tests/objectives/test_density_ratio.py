"""The total correlation that a discriminator estimates."""

import numpy as np
import pytest
import torch
from scipy.special import log_expit
from torch import nn

from tests.support.annotations import takes
from tests.support.linear_gaussian import D, linear_gaussian
from tests.support.objectives import F64, images
from vae_cli.distributions import DiagonalNormalPosterior
from vae_cli.objectives import ELBO, FactorVAE


def factor_vae(**options):
    """An objective in float64, for the linear-Gaussian model."""
    objective = FactorVAE(latent_dim=D, hidden=[8, 8], **options)
    objective.module.double()
    return objective


def noise(objective, model, count=6):
    return torch.randn(objective.mc_samples, count, objective.noise_dim(model), dtype=F64)


@pytest.mark.parametrize("correlation", [[0.8], [0.7, 0.2, 0.5]])
def test_a_trained_discriminator_gives_the_total_correlation_of_a_gaussian(correlation):
    """It is −½ log det of the correlation matrix."""
    size = 2 if len(correlation) == 1 else 3
    matrix = torch.eye(size)
    matrix[tuple(torch.tril_indices(size, size, -1))] = torch.tensor(correlation)
    matrix = matrix.tril() + matrix.tril(-1).T
    scale = torch.linalg.cholesky(matrix)
    objective = FactorVAE(latent_dim=size, hidden=[64, 64], lr=3e-3)
    optimizer = objective.module_optimizer()
    for step in range(400):
        optimizer.param_groups[0]["lr"] = 3e-3 * (1 - step / 400)
        loss, _ = objective.discrimination(torch.randn(1, 500, size) @ scale.T, torch.randn(1, 500, size))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        estimate = float(objective.module(torch.randn(20_000, size) @ scale.T).mean())
    assert estimate == pytest.approx(-0.5 * float(matrix.logdet()), abs=0.04)


def test_each_loss_gives_its_own_parameters_alone_a_gradient():
    model, objective = linear_gaussian(DiagonalNormalPosterior), factor_vae(mc_samples=2)
    bound = objective(model, (images(6), None), noise(objective, model), 0)
    own, others = list(objective.module.parameters()), list(model.parameters())
    for loss, moved, still in ((bound.loss, others, own), (bound.module_loss, own, others)):
        assert all(g is None for g in torch.autograd.grad(loss, still, retain_graph=True, allow_unused=True))
        moving = torch.autograd.grad(loss, moved, retain_graph=True)
        assert all(g.abs().max() > 0 for g in moving)
    together = torch.autograd.grad(bound.loss + bound.module_loss, [*own, *others], retain_graph=True)
    apart = torch.autograd.grad(bound.module_loss, own, retain_graph=True) + torch.autograd.grad(bound.loss, others)
    assert all(torch.equal(a, b) for a, b in zip(together, apart))


def test_without_weight_the_models_gradient_is_the_elbos_and_with_it_that_of_the_estimate_is_added():
    model, objective, x = linear_gaussian(DiagonalNormalPosterior), factor_vae(gamma=0.0), images(6)
    drawn = noise(objective, model)
    parameters = list(model.parameters())
    plain = ELBO()(model, (x, None), drawn[..., :D], 0)
    without = objective(model, (x, None), drawn, 0)
    assert float(without.loss.detach()) == pytest.approx(float(plain.loss.detach()))
    a, b = (torch.autograd.grad(bound.loss, parameters) for bound in (plain, without))
    torch.testing.assert_close(a, b)
    objective.gamma = 7.0
    z = model.encode(x).rsample_and_log_prob(drawn[..., :D])[0]
    # The decoder has no part in the codes.
    added = torch.autograd.grad(7 * objective.module(z).mean(), list(model.encoder.parameters()))
    weighted = torch.autograd.grad(objective(model, (x, None), drawn, 0).loss, list(model.encoder.parameters()))
    expected = [one + more for one, more in zip(b[: len(added)], added)]
    torch.testing.assert_close(list(weighted), expected)


class Recorder(nn.Module):
    """Keeps what it is given; its logit is the sum."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, z):
        self.seen.append(z)
        return z.sum(-1, keepdim=True)


def test_every_dimension_is_permuted_among_the_images_of_its_draw_by_the_order_of_the_noise():
    objective, z, places = FactorVAE(latent_dim=3), torch.randn(2, 50, 3), torch.randn(2, 50, 3)
    objective.module = Recorder()
    objective.discrimination(z, places)
    (joint, permuted) = objective.module.seen[0]
    assert torch.equal(joint, z)
    for draw in range(2):
        orders = [np.argsort(places[draw, :, d].numpy()) for d in range(3)]
        expected = np.stack([z[draw, order, d].numpy() for d, order in enumerate(orders)], axis=-1)
        np.testing.assert_array_equal(permuted[draw].numpy(), expected)
        assert not np.array_equal(orders[0], orders[1])


def test_the_discriminators_loss_and_accuracy_are_those_of_a_classifier_of_two_equal_halves():
    objective, z, places = FactorVAE(latent_dim=3), torch.randn(2, 50, 3), torch.randn(2, 50, 3)
    objective.module = Recorder()
    loss, accuracy = objective.discrimination(z, places)
    joint, product = (seen.sum(-1).double().numpy() for seen in objective.module.seen[0])
    assert float(loss) == pytest.approx(-0.5 * (log_expit(joint).mean() + log_expit(-product).mean()), rel=1e-5)
    right = np.concatenate([joint.ravel() > 0, product.ravel() < 0]).mean()
    assert 0 < right < 1 and float(accuracy) == pytest.approx(right)


def test_a_batch_of_one_image_moves_the_estimate_nowhere_but_to_zero():
    model, objective = linear_gaussian(DiagonalNormalPosterior), factor_vae()
    bound = objective(model, (images(1), None), noise(objective, model, 1), 0)
    assert float(bound.module_loss.detach()) >= np.log(2) and bound.loss.isfinite()


def test_two_betas_are_wanted():
    assert takes(FactorVAE, "betas", [0.5, 0.9])
    for wrong in ([0.5], [0.5, 0.9, 0.9], [0.5, 1.0], 0.5):
        assert not takes(FactorVAE, "betas", wrong)


def test_the_optimizer_has_the_keys_settings():
    (group,) = FactorVAE(latent_dim=2, lr=0.3, betas=[0.1, 0.2]).module_optimizer().param_groups
    assert group["lr"] == 0.3 and group["betas"] == (0.1, 0.2) and group["fused"]
    assert len(group["params"]) == 8
