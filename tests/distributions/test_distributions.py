"""Densities integrate or sum to one, and agree with closed forms, torch.distributions, scipy and quadrature."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from vae_cli.distributions import (
    BernoulliLikelihood,
    ContinuousBernoulli,
    ContinuousBernoulliLikelihood,
    DiagonalNormal,
    DiagonalNormalPosterior,
    DiscretizedLogistic,
    DiscretizedLogisticLikelihood,
    FullNormal,
    FullNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
    analytic_kl,
)
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.errors import ConfigError

SHAPE = (1, 2, 2)


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def random_normals(dim=3, batch=(4,), dtype=torch.float64):
    diagonal = DiagonalNormal(torch.randn(*batch, dim, dtype=dtype), 0.5 * torch.randn(*batch, dim, dtype=dtype))
    below = torch.randn(*batch, dim, dim, dtype=dtype).tril(-1)
    full = FullNormal(
        torch.randn(*batch, dim, dtype=dtype), below + torch.diag_embed(torch.rand(*batch, dim, dtype=dtype) + 0.3)
    )
    return diagonal, full


def test_normals_have_the_log_density_and_entropy_of_torch_and_scipy():
    diagonal, full = random_normals()
    z = torch.randn(5, 4, 3, dtype=torch.float64)
    theirs = MultivariateNormal(full.loc, scale_tril=full.scale_tril)
    torch.testing.assert_close(full.log_prob(z), theirs.log_prob(z), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(full.entropy(), theirs.entropy(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(full.variance, theirs.variance)
    for b in range(4):
        expected = scipy.stats.multivariate_normal(diagonal.loc[b], np.diag(diagonal.variance[b])).logpdf(z[:, b])
        np.testing.assert_allclose(diagonal.log_prob(z)[:, b], expected, rtol=1e-12)
    torch.testing.assert_close(diagonal.entropy(), Normal(diagonal.loc, diagonal.scale).entropy().sum(-1))


def test_push_gives_the_density_of_where_it_lands_and_the_right_moments():
    for q in random_normals():
        z, log_q = q.rsample_and_log_prob(torch.randn(7, 4, 3, dtype=torch.float64))
        torch.testing.assert_close(log_q, q.log_prob(z), rtol=1e-10, atol=1e-10)
        many = q.rsample_and_log_prob(torch.randn(200_000, 4, 3, dtype=torch.float64))[0]
        # Standard error of a mean is at most 3/sqrt(2e5) = 0.007 here.
        torch.testing.assert_close(many.mean(0), q.mean, rtol=0, atol=0.04)
        torch.testing.assert_close(many.var(0), q.variance, rtol=0.03, atol=0)


def test_analytic_kl_agrees_with_torch_and_with_monte_carlo():
    prior = StandardNormalPrior(3).double()(lambda x: None)
    standard = MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    diagonal, full = random_normals()
    for q, theirs in (
        (diagonal, MultivariateNormal(diagonal.loc, scale_tril=torch.diag_embed(diagonal.scale))),
        (full, MultivariateNormal(full.loc, scale_tril=full.scale_tril)),
    ):
        closed = analytic_kl(q, prior)
        torch.testing.assert_close(closed, kl_divergence(theirs, standard), rtol=1e-12, atol=1e-12)
        z, log_q = q.rsample_and_log_prob(torch.randn(100_000, 4, 3, dtype=torch.float64))
        terms = log_q - prior.log_prob(z)
        error = terms.std(0) / math.sqrt(len(terms))
        assert ((terms.mean(0) - closed).abs() < 5 * error).all()


def test_analytic_kl_is_the_integral_of_its_definition():
    """∫ q (log q − log p) over a grid in two dimensions."""
    line = torch.linspace(-14, 14, 701, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).unsqueeze(-2)
    p = random_normals(dim=2, batch=(1,))[0]
    for q in random_normals(dim=2, batch=(1,)):
        log_q = q.log_prob(z)
        integral = (log_q.exp() * (log_q - p.log_prob(z))).sum() * (line[1] - line[0]) ** 2
        torch.testing.assert_close(analytic_kl(q, p).squeeze(), integral, rtol=1e-8, atol=1e-8)


def test_kl_between_two_diagonal_normals_agrees_with_torch():
    q, p = random_normals()[0], random_normals()[0]
    expected = kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)).sum(-1)
    torch.testing.assert_close(analytic_kl(q, p), expected, rtol=1e-12, atol=1e-12)


def test_there_is_no_closed_form_where_none_is_registered():
    assert analytic_kl(random_normals()[0], torch.distributions.Gumbel(torch.zeros(3), torch.ones(3))) is None


def test_posterior_heads_take_all_their_features_and_start_near_any_scale():
    for head, count in ((DiagonalNormalPosterior(4), 8), (FullNormalPosterior(4), 14)):
        assert head.features == count
        features = torch.randn(5, count, requires_grad=True)
        z, log_q = head(features).rsample_and_log_prob(torch.randn(2, 5, 4))
        (z.square().sum() + log_q.sum()).backward()
        assert (features.grad != 0).all()


def test_a_full_posterior_is_lower_triangular_with_a_positive_diagonal():
    q = FullNormalPosterior(4)(torch.randn(5, 14))
    assert (q.scale_tril.triu(1) == 0).all() and (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (q.scale_tril.tril(-1).flatten(1) != 0).sum() == 5 * 6


def test_bounded_log_scale_is_monotone_finite_and_never_stops_a_gradient():
    raw = torch.cat([-torch.logspace(9, -3, 200), torch.logspace(-3, 9, 200)]).requires_grad_()
    bounded = bounded_log_scale(raw)
    bounded.sum().backward()
    inside = (raw > -7) & (raw < 4)
    torch.testing.assert_close(bounded[inside], raw[inside])
    assert (bounded.diff() >= 0).all() and (raw.grad > 0).all()
    assert bounded.exp().square().isfinite().all() and (bounded.exp() > 0).all()


def bernoulli_total(logits):
    likelihood = BernoulliLikelihood(SHAPE)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).reshape(-1, *SHAPE)
    return likelihood(logits).log_prob(corners).exp().sum()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (1, 1, 1), (2, 2, 3)])
@pytest.mark.parametrize("batches", [((4,), (4,)), ((6, 4), (4,)), ((), (5,)), ((2, 3), (2, 3)), ((1, 4), (3, 4))])
def test_bernoulli_images_and_their_gradient_are_torchs_in_float64(shape, batches):
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(*batches[0], *shape, generator=generator, dtype=torch.float64)
    x = (torch.rand(*batches[1], *shape, generator=generator) < 0.4).double()
    weights = torch.randn(torch.broadcast_shapes(*batches), generator=generator, dtype=torch.float64)
    found = []
    for build in (
        BernoulliLikelihood(shape),
        lambda own: torch.distributions.Independent(torch.distributions.Bernoulli(logits=own), 3),
    ):
        own = logits.clone().requires_grad_()
        log_p = build(own).log_prob(x)
        (log_p * weights).sum().backward()
        found.append((log_p.detach(), own.grad))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [0.1, 3.0, 20.0, 60.0, 300.0])
def test_bernoulli_images_in_float32_are_as_near_to_float64_as_their_sum_is(size):
    """784 pixels: summed in float32, torch's own terms are off by up to 1e-6 of their sum of absolute values."""
    generator = torch.Generator().manual_seed(1)
    logits = size * torch.randn(200, 1, 28, 28, generator=generator)
    x = (torch.rand(200, 1, 28, 28, generator=generator) < 0.5).float()
    exact = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double()).sum((1, 2, 3))
    found = BernoulliLikelihood((1, 28, 28))(logits).log_prob(x)
    assert ((found - exact).abs() <= 1e-6 * exact.abs() + 1e-5).all()


@pytest.mark.parametrize("logit", [5.0, 10.8, 10.9, 10.95, 11.0, 11.5, 12.5, 20.0, 40.0, 88.0, 104.0])
@pytest.mark.parametrize("wrong", [1, 50, 784])
def test_bernoulli_images_are_exact_where_products_of_their_factors_are_too_large(logit, wrong):
    """Eight factors of e¹¹ each are beyond every float32."""
    x = torch.ones(3, 1, 28, 28)
    logits = torch.full((3, 784), logit)
    logits[1, :wrong] = -logit
    found = BernoulliLikelihood((1, 28, 28))(logits.reshape(x.shape)).log_prob(x)
    right, missed = scipy.special.log_expit(logit), scipy.special.log_expit(-logit)
    expected = torch.tensor([784 * right, wrong * missed + (784 - wrong) * right, 784 * right])
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-6, atol=1e-4)


def test_bernoulli_images_may_be_bytes_or_none():
    likelihood, logits = BernoulliLikelihood((1, 4, 4)), torch.full((2, 1, 4, 4), 0.02)
    bits = torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    torch.testing.assert_close(likelihood(logits).log_prob(bits), likelihood(logits).log_prob(bits.float()))
    assert likelihood(logits[:0]).log_prob(bits[:0]).shape == (0,)


def test_bernoulli_sums_to_one_over_all_images():
    assert abs(bernoulli_total(3 * torch.randn(1, *SHAPE, dtype=torch.float64)) - 1) < 1e-12


@pytest.mark.parametrize("loc", [-3.0, 0.0, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 4.0])
def test_discretized_logistic_sums_to_one_over_its_levels(loc, log_scale):
    levels = torch.arange(256, dtype=torch.float64) / 255
    p = DiscretizedLogistic(torch.tensor(loc, dtype=torch.float64), torch.tensor(log_scale, dtype=torch.float64))
    log_p = p.log_prob(levels)
    assert log_p.isfinite().all()
    assert abs(log_p.exp().sum() - 1) < 1e-12
    torch.testing.assert_close(p.mean, (log_p.exp() * levels).sum(), rtol=1e-10, atol=1e-12)


def test_discretized_logistic_is_a_difference_of_scipy_logistic_cdfs():
    loc, scale, k = 0.4, 0.05, np.arange(1, 255)
    expected = np.log(np.diff(scipy.stats.logistic(loc, scale).cdf((np.arange(1, 256) - 0.5) / 255)))
    p = DiscretizedLogistic(*torch.tensor([loc, math.log(scale)], dtype=torch.float64))
    np.testing.assert_allclose(p.log_prob(torch.tensor(k / 255)), expected, rtol=1e-8)


def test_discretized_logistic_stays_finite_in_float32_in_the_far_tails():
    loc = torch.tensor([-50.0, -1.0, 0.5, 2.0, 50.0], requires_grad=True)
    log_scale = torch.full((5,), -7.0, requires_grad=True)
    for level in (0, 1, 128, 254, 255):
        log_p = DiscretizedLogistic(loc, log_scale).log_prob(torch.tensor(level / 255))
        assert log_p.isfinite().all()
        grads = torch.autograd.grad(log_p.sum(), (loc, log_scale))
        assert all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("logit", [-60.0, -5.0, -1.0, -0.19, -1e-3, 0.0, 1e-5, 0.05, 2.0, 30.0])
def test_continuous_bernoulli_integrates_to_one_with_its_mean_and_quantiles(logit):
    p = ContinuousBernoulli(torch.tensor(logit, dtype=torch.float64))
    nodes, weights = (torch.tensor(a) for a in np.polynomial.legendre.leggauss(400))
    x, weights = (nodes + 1) / 2, weights / 2
    density = p.log_prob(x).exp()
    assert abs((weights * density).sum() - 1) < 1e-10
    assert abs((weights * density * x).sum() - p.mean) < 1e-9
    for u in (0.01, 0.4, 0.99):
        top = p.icdf(torch.tensor(u, dtype=torch.float64))
        below = (weights * top * p.log_prob(x * top).exp()).sum()
        assert abs(below - u) < 1e-8


def test_continuous_bernoulli_agrees_with_torch_away_from_its_approximations():
    logits = torch.tensor([-8.0, -2.0, -0.5, 0.5, 3.0, 9.0], dtype=torch.float64)
    x = torch.rand(20, 1, dtype=torch.float64)
    theirs = torch.distributions.ContinuousBernoulli(logits=logits)
    torch.testing.assert_close(ContinuousBernoulli(logits).log_prob(x), theirs.log_prob(x), rtol=1e-9, atol=1e-9)


def test_continuous_bernoulli_is_finite_with_finite_gradients_in_float32_everywhere():
    logits = torch.tensor([-1e4, -300.0, -0.1, 0.0, 0.1, 300.0, 1e4], requires_grad=True)
    for x in (0.0, 0.5, 1.0):
        p = ContinuousBernoulli(logits)
        assert p.log_prob(torch.tensor(x)).isfinite().all() and p.mean.isfinite().all()
        assert torch.autograd.grad(p.log_prob(torch.tensor(x)).sum() + p.mean.sum(), logits)[0].isfinite().all()


def test_samplers_follow_their_densities():
    p = ContinuousBernoulli(torch.tensor(2.5, dtype=torch.float64))
    x = p.sample((20_000,)).numpy()
    cdf = lambda v: (np.exp(2.5 * v) - 1) / (np.exp(2.5) - 1)  # noqa: E731
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3
    p = DiscretizedLogistic(torch.tensor(0.1, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64))
    levels = (p.sample((100_000,)) * 255).round().long().numpy()
    expected = p.log_prob(torch.arange(256, dtype=torch.float64) / 255).exp().numpy() * 100_000
    assert scipy.stats.chisquare(np.bincount(levels, minlength=256), expected).pvalue > 1e-3


def test_normal_likelihood_is_scipys_with_the_scale_it_was_given():
    mean, x = torch.randn(5, *SHAPE), torch.rand(5, *SHAPE)
    for scale in (1e-4, 0.3, 100):
        likelihood = NormalLikelihood(SHAPE, scale=scale)
        expected = scipy.stats.norm(mean.numpy(), scale).logpdf(x.numpy()).sum((1, 2, 3))
        np.testing.assert_allclose(likelihood(mean).log_prob(x), expected, rtol=1e-5)
        assert not list(likelihood.parameters())
    assert [p.shape for p in NormalLikelihood(SHAPE).parameters()] == [()]


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "wide"])
def test_normal_likelihood_refuses_a_scale_that_is_none(scale):
    with pytest.raises(ConfigError, match="likelihood.scale"):
        NormalLikelihood(SHAPE, scale=scale)


@pytest.mark.parametrize(
    "cls", [BernoulliLikelihood, ContinuousBernoulliLikelihood, NormalLikelihood, DiscretizedLogisticLikelihood]
)
def test_every_likelihood_can_start_at_a_mean_image(cls):
    likelihood = cls((3, 4, 5))
    mean = 0.1 + 0.8 * torch.rand(3, 4, 5)
    output = likelihood.start_at(mean, torch.full_like(mean, 0.05))
    assert tuple(output.shape) == likelihood.output_shape
    torch.testing.assert_close(likelihood(output).mean, mean, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "cls", [BernoulliLikelihood, ContinuousBernoulliLikelihood, NormalLikelihood, DiscretizedLogisticLikelihood]
)
def test_every_likelihood_gives_one_number_per_draw_and_image(cls):
    likelihood = cls((3, 4, 5))
    output = torch.randn(7, 2, *likelihood.output_shape)
    assert likelihood(output).log_prob(torch.ones(2, 3, 4, 5)).shape == (7, 2)
    assert likelihood(output).mean.shape == (7, 2, 3, 4, 5)
