"""The bound against a linear-Gaussian model, where log p(x) and p(z|x) have closed forms."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal, kl_divergence

from tests.support.linear_gaussian import SHAPE, D, exact, linear_gaussian
from vae_cli.distributions import (
    BernoulliLikelihood,
    DiagonalNormalPosterior,
    DiscretizedLogisticLikelihood,
    FullNormal,
    FullNormalPosterior,
    StandardNormalPrior,
)
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO


def exact_elbo(model, x):
    """The ELBO with its expectation in closed form: E_q |x − Wz − b|² = |x − Wμ − b|² + tr(W Σ Wᵀ)."""
    w, b = model.decoder.output.weight, model.decoder.output.bias
    sigma = model.likelihood.log_scale.exp()
    q = model.encode(x)
    covariance = q.scale_tril @ q.scale_tril.mT if isinstance(q, FullNormal) else torch.diag_embed(q.variance)
    error = (x.flatten(1) - q.mean @ w.T - b).square().sum(1) + torch.einsum("id,bde,ie->b", w, covariance, w)
    n = x[0].numel()
    return -0.5 * error / sigma**2 - n * (sigma.log() + 0.5 * math.log(2 * math.pi)), q, covariance


@pytest.mark.parametrize("posterior", [DiagonalNormalPosterior, FullNormalPosterior])
def test_elbo_plus_kl_to_the_true_posterior_is_log_p_x_to_1e9(posterior):
    model = linear_gaussian(posterior)
    x = torch.rand(6, *SHAPE, dtype=torch.float64)
    log_p_x, true_posterior = exact(model, x)
    reconstruction, q, covariance = exact_elbo(model, x)
    # Antithetic, symmetric nodes make the objective's own mean over draws exact for a quadratic integrand.
    noise = symmetric_noise(len(x))
    bound = ELBO(kl="analytic", mc_samples=len(noise))(model, (x, None), noise, 0)
    torch.testing.assert_close(bound.terms["reconstruction"], reconstruction, rtol=0, atol=1e-9)
    gap = kl_divergence(MultivariateNormal(q.mean, covariance), true_posterior)
    torch.testing.assert_close(bound.elbo + gap, log_p_x, rtol=0, atol=1e-9)


def symmetric_noise(batch):
    """2D draws ±√D e_d, whose mean is 0 and covariance I exactly."""
    nodes = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    return nodes[:, None].expand(-1, batch, -1)


@pytest.mark.parametrize("posterior", [DiagonalNormalPosterior, FullNormalPosterior])
def test_the_three_log_densities_of_the_evidence_obey_bayes_rule(posterior):
    """log p(x|z) + log p(z) − log p(z|x) = log p(x) at every draw, whatever q."""
    model = linear_gaussian(posterior)
    x = torch.rand(6, *SHAPE, dtype=torch.float64)
    log_p_x, true_posterior = exact(model, x)
    evidence = model.evidence(x, torch.randn(5, 6, D, dtype=torch.float64))
    assert evidence.z.shape == (5, 6, D)
    joint = evidence.log_p_x_given_z + evidence.log_p_z - true_posterior.log_prob(evidence.z)
    torch.testing.assert_close(joint, log_p_x.expand(5, 6), rtol=0, atol=1e-9)
    torch.testing.assert_close(evidence.log_q_z_given_x, evidence.posterior.log_prob(evidence.z), rtol=0, atol=1e-9)


def test_monte_carlo_and_analytic_kl_have_the_same_expectation():
    model = linear_gaussian(FullNormalPosterior)
    x = torch.rand(3, *SHAPE, dtype=torch.float64)
    noise = torch.randn(20_000, 3, D, dtype=torch.float64)
    sampled = ELBO(kl="monte_carlo")(model, (x, None), noise, 0).terms["kl"]
    analytic = ELBO(kl="analytic")(model, (x, None), noise, 0).terms["kl"]
    evidence = model.evidence(x, noise)
    error = (evidence.log_q_z_given_x - evidence.log_p_z).std(0) / math.sqrt(len(noise))
    assert ((sampled - analytic).abs() < 5 * error).all()


def test_more_draws_give_the_same_mean_gradient_with_less_variance():
    model = linear_gaussian(DiagonalNormalPosterior)
    x = torch.rand(4, *SHAPE, dtype=torch.float64)

    def gradients(k, repeats):
        gradients = []
        for _ in range(repeats):
            model.zero_grad()
            ELBO(mc_samples=k)(model, (x, None), torch.randn(k, 4, D, dtype=torch.float64), 0).loss.backward()
            gradients.append(model.encoder.output.weight.grad.flatten().clone())
        return torch.stack(gradients)

    one, ten = gradients(1, 600), gradients(10, 600)
    error = ((one.var(0) + ten.var(0)) / 600).sqrt()
    assert ((one.mean(0) - ten.mean(0)).abs() < 5 * error).all()
    ratio = one.var(0).sum() / ten.var(0).sum()
    assert 8 < ratio < 12.5  # ten independent draws: a tenth of the variance


@pytest.mark.parametrize("likelihood", [BernoulliLikelihood, DiscretizedLogisticLikelihood])
@pytest.mark.parametrize("kl", ["analytic", "monte_carlo"])
def test_gradients_agree_with_finite_differences(likelihood, kl):
    torch.manual_seed(2)
    posterior, likelihood = DiagonalNormalPosterior(2), likelihood(SHAPE)
    model = VAE(
        MLPEncoder(SHAPE, posterior.features, [4], "tanh"),
        MLPDecoder(2, likelihood.output_shape, [4], "tanh"),
        posterior,
        StandardNormalPrior(2),
        likelihood,
    ).double()
    levels = 2 if isinstance(likelihood, BernoulliLikelihood) else 256
    x = torch.randint(0, levels, (3, *SHAPE)).double() / (levels - 1)
    noise = torch.randn(2, 3, 2, dtype=torch.float64)
    loss = lambda: ELBO(kl=kl, beta=0.7)(model, (x, None), noise, 5).loss  # noqa: E731
    loss().backward()
    for parameter in model.parameters():
        flat = parameter.data.view(-1)
        for at in {0, len(flat) // 3, len(flat) // 2, len(flat) - 1}:
            difference = finite_difference(loss, flat, at)
            assert abs(difference - parameter.grad.view(-1)[at]) < 1e-5 * max(1e-2, parameter.grad.abs().max())


def finite_difference(function, flat, at, step=1e-5):
    before, values = flat[at].item(), []
    for sign in (1, -1):
        flat[at] = before + sign * step
        values.append(function().item())
    flat[at] = before
    return (values[0] - values[1]) / (2 * step)


def test_beta_and_its_warm_up_shape_the_loss_but_never_the_reported_elbo():
    model = linear_gaussian(DiagonalNormalPosterior)
    batch, noise = (torch.rand(4, *SHAPE, dtype=torch.float64), None), torch.randn(2, 4, D, dtype=torch.float64)
    plain = ELBO()(model, batch, noise, 0)
    weighted = ELBO(beta=4, warmup_epochs=2, steps_per_epoch=10)
    for step, beta in ((0, 0.0), (5, 1.0), (20, 4.0), (100, 4.0)):
        bound = weighted(model, batch, noise, step)
        torch.testing.assert_close(bound.elbo, plain.elbo)
        torch.testing.assert_close(bound.loss, (beta * bound.terms["kl"] - bound.terms["reconstruction"]).mean())


def test_bfloat16_multiplies_in_bfloat16_and_keeps_densities_in_float32():
    torch.manual_seed(0)
    posterior, likelihood = DiagonalNormalPosterior(2), BernoulliLikelihood(SHAPE)
    parts = MLPEncoder(SHAPE, 4), MLPDecoder(2, SHAPE), posterior, StandardNormalPrior(2), likelihood
    x, noise = torch.ones(3, *SHAPE), torch.randn(1, 3, 2)
    full = VAE(*parts).evidence(x, noise)
    half = VAE(*parts, precision=torch.bfloat16).evidence(x, noise)
    assert half.log_p_x_given_z.dtype == half.log_q_z_given_x.dtype == torch.float32
    torch.testing.assert_close(half.log_p_x_given_z, full.log_p_x_given_z, rtol=0.02, atol=0.02)
    assert not torch.equal(half.log_p_x_given_z, full.log_p_x_given_z)
