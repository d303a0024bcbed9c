"""Importance-weighted bounds against their definition."""

import math

import numpy as np
import pytest
import torch

from tests.support.linear_gaussian import exact, linear_gaussian, made_exact
from tests.support.objectives import encoder_gradient, images, noise
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    FullNormalPosterior,
)
from vae_cli.objectives import ELBO, IWAE


def test_iwae_with_one_draw_is_the_elbo_in_value_and_gradient():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(1)
    elbo, iwae = ELBO(kl="monte_carlo"), IWAE()
    a, b = elbo(model, (x, None), drawn, 0), iwae(model, (x, None), drawn, 0)
    torch.testing.assert_close(a.elbo, b.bound, rtol=0, atol=1e-12)
    torch.testing.assert_close(a.elbo, b.elbo, rtol=0, atol=1e-12)
    first, second = (encoder_gradient(objective, model, x, drawn) for objective in (elbo, iwae))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_with_the_exact_posterior_every_weight_is_p_of_x(k):
    x = images()
    model = made_exact(linear_gaussian(FullNormalPosterior), x)
    log_p_x, _ = exact(model, x)
    for _ in range(3):
        bound = IWAE(mc_samples=k)(model, (x, None), noise(k), 0)
        torch.testing.assert_close(bound.bound, log_p_x, rtol=0, atol=1e-9)


def test_the_mean_bound_rises_with_the_number_of_draws_and_stays_below_log_p_x():
    model, x = linear_gaussian(DiagonalNormalPosterior), images(2)
    evidence = model.evidence(x, noise(64 * 2000, 2))
    log_w = (evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x).unflatten(0, (2000, 64))
    log_p_x, _ = exact(model, x)
    means, errors = [], []
    for k in (1, 4, 16, 64):
        bounds = log_w.unflatten(1, (64 // k, k)).logsumexp(2) - math.log(k)
        means.append(bounds.mean((0, 1)))
        errors.append(bounds.flatten(0, 1).std(0) / math.sqrt(bounds[..., 0].numel()))
    for low, high, error in zip(means, means[1:], errors):
        assert (high > low + 3 * error).all()
    assert (means[-1] < log_p_x + 4 * errors[-1]).all()


def test_the_bound_is_the_log_of_the_mean_weight_and_groups_average_bounds():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(6)
    e = model.evidence(x, drawn)
    w = (e.log_p_x_given_z + e.log_p_z - e.log_q_z_given_x).detach().numpy()
    expected = np.log(np.mean(np.exp(w - w.max(0)), 0)) + w.max(0)
    bound = IWAE(mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(bound.bound.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(bound.elbo.detach(), w.mean(0), atol=1e-10)
    grouped = IWAE(groups=6, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(grouped.bound.detach(), w.mean(0), atol=1e-10)
    three = np.stack([np.log(np.exp(part - part.max(0)).mean(0)) + part.max(0) for part in np.split(w, 3)])
    bound = IWAE(groups=3, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(bound.bound.detach(), three.mean(0), atol=1e-10)
    mixed = IWAE(elbo_weight=0.3, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(-mixed.loss.detach(), (0.7 * expected + 0.3 * w.mean(0)).mean(), atol=1e-10)


def test_dreg_gives_the_decoder_the_pathwise_gradient():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(5)
    gradients = []
    for objective in (IWAE(mc_samples=5), IWAE("dreg", mc_samples=5)):
        model.zero_grad()
        objective(model, (x, None), drawn, 0).loss.backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.decoder.parameters()]))
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [0.0, 0.5, -3.0])
def test_dregs_gradient_is_linear_in_the_loss(factor):
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(4)
    gradients = []
    for scale in (1.0, factor):
        model.zero_grad()
        (scale * IWAE("dreg", groups=2, mc_samples=4)(model, (x, None), drawn, 0).loss).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(gradients[1], factor * gradients[0], rtol=1e-10, atol=1e-12)


def test_dregs_loss_is_minus_the_bound_whatever_its_gradient_is_of():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(5)
    bound = IWAE("dreg", mc_samples=5)(model, (x, None), drawn, 0)
    assert float(bound.loss.detach()) == pytest.approx(-float(bound.bound.detach().mean()))
