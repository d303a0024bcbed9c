"""Distributions of one value sum or integrate to one, and agree with SciPy."""

import math

import mpmath  # comes with torch's sympy
import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from tests.support.densities import F64, close
from vae_cli.distributions import (
    ContinuousBernoulli,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    Levels,
)
from vae_cli.distributions.pixels import ContinuousBits


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
    logits = torch.tensor([-1e37, -1e9, -1e4, -300.0, -0.1, 0.0, 0.1, 300.0, 1e4, 1e9, 1e37], requires_grad=True)
    for x in (0.0, 0.5, 1.0):
        p = ContinuousBernoulli(logits)
        assert p.log_prob(torch.tensor(x)).isfinite().all() and p.mean.isfinite().all()
        assert torch.autograd.grad(p.log_prob(torch.tensor(x)).sum() + p.mean.sum(), logits)[0].isfinite().all()


@pytest.mark.parametrize("spread", [0.01, 5.0, 3e4, 1e7])
@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-9), (torch.float32, 1e-5)])
def test_the_density_of_continuous_bits_is_the_sum_of_the_values_densities_with_their_gradients(
    spread, dtype, tolerance
):
    generator = torch.Generator().manual_seed(3)
    logits = (spread * torch.randn(2, 5, 1, 6, 8, generator=generator)).to(dtype).requires_grad_(True)
    x = torch.rand(5, 1, 6, 8, generator=generator).to(dtype)
    weights = torch.rand(2, 5, generator=generator).to(dtype)
    exact = logits.detach().double().requires_grad_(True)
    each = exact * x.double() - torch.where(  # log of (e^η − 1) / η, from the side where nothing overflows
        exact > 0,
        exact + torch.log(-torch.expm1(-exact.abs()) / exact.abs()),
        torch.log(-torch.expm1(-exact.abs()) / exact.abs()),
    )
    found, expected = ContinuousBits(logits, 3).log_prob(x), each.sum((-3, -2, -1))
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=48 * tolerance)
    grads = [torch.autograd.grad((f * weights).sum(), of)[0] for f, of in ((found, logits), (expected, exact))]
    torch.testing.assert_close(grads[0].double(), grads[1], rtol=0, atol=10 * tolerance)


def test_one_continuous_bernoulli_has_a_gradient_too():
    logit = torch.tensor(2.0, requires_grad=True)
    ContinuousBernoulli(logit).log_prob(torch.tensor(0.3)).backward()
    assert float(logit.grad) == pytest.approx(0.3 - (1 / (1 - math.exp(-2)) - 0.5), abs=1e-6)


def test_samplers_follow_their_densities():
    p = ContinuousBernoulli(torch.tensor(2.5, dtype=torch.float64))
    x = p.sample((20_000,)).numpy()
    cdf = lambda v: (np.exp(2.5 * v) - 1) / (np.exp(2.5) - 1)  # noqa: E731
    assert scipy.stats.kstest(x, cdf).pvalue > 1e-3
    p = DiscretizedLogistic(torch.tensor(0.1, dtype=torch.float64), torch.tensor(-2.0, dtype=torch.float64))
    levels = (p.sample((100_000,)) * 255).round().long().numpy()
    expected = p.log_prob(torch.arange(256, dtype=torch.float64) / 255).exp().numpy() * 100_000
    assert scipy.stats.chisquare(np.bincount(levels, minlength=256), expected).pvalue > 1e-3


LEVELS = torch.linspace(0, 1, 256, dtype=F64)


def level_distributions():
    scales = torch.tensor([-6.0, -3.0, 0.0], dtype=F64)
    mixture = DiscretizedLogisticMixture(torch.randn(3, dtype=F64), torch.tensor([-2.0, 0.4, 1.3], dtype=F64), scales)
    return {"mixture": mixture, "categorical": Levels(3 * torch.randn(256, dtype=F64))}


@pytest.mark.parametrize("name", ["mixture", "categorical"])
def test_levels_sum_to_one_with_their_mean_and_are_drawn_as_often_as_they_should(name):
    p = level_distributions()[name]
    probabilities = p.log_prob(LEVELS).exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-9)
    assert float(p.mean) == pytest.approx(float(probabilities @ LEVELS))
    drawn = (p.sample((20_000,)) * 255).round().long()
    expected = probabilities.numpy() * 20_000
    often = expected > 20
    observed = np.bincount(drawn.numpy(), minlength=256)
    chi = (((observed - expected) ** 2 / expected)[often]).sum()
    assert chi < scipy.stats.chi2.isf(1e-4, often.sum())


def test_a_mixture_of_discretized_logistics_is_scipys():
    p = level_distributions()["mixture"]
    weights = p.logits.exp().numpy()
    cdf = [scipy.stats.logistic(float(m), math.exp(float(s))).cdf for m, s in zip(p.loc, p.log_scale)]
    edges = (np.arange(255) + 0.5) / 255
    total = sum(w * np.diff([0, *f(edges), 1]) for w, f in zip(weights, cdf))
    np.testing.assert_allclose(p.log_prob(LEVELS).exp(), total, atol=1e-12)


@pytest.mark.parametrize("logit", [-1e4, -200.0, -3.0, -1e-6, 1e-6, 3.0, 200.0, 1e4])
@pytest.mark.parametrize("x", [0.0, 0.3, 1.0])
def test_continuous_bernoulli_is_its_formula(logit, x):
    """log of η e^{ηx} / (e^η − 1), taken from the side where nothing overflows."""
    size, side = abs(logit), x if logit < 0 else 1 - x
    x32 = float(np.float32(side))
    expected = np.log(size) - size * x32 - np.log(-np.expm1(-size))
    close(ContinuousBernoulli(torch.tensor(logit)).log_prob(torch.tensor(x)), expected)


def log_logistic(levels, loc, scale):
    """log [σ(b) − σ(a)] in float64, from the tail in which it is exact."""
    low, high = (levels - 0.5) / 255, (levels + 0.5) / 255
    p = scipy.stats.logistic(loc, scale)
    with np.errstate(divide="ignore"):  # each side is exact in its own tail alone
        upper = p.logsf(low) + np.log1p(-np.exp(p.logsf(high) - p.logsf(low)))
        lower = p.logcdf(high) + np.log1p(-np.exp(p.logcdf(low) - p.logcdf(high)))
    inner = np.where(low > loc, upper, lower)
    return np.where(levels == 0, p.logcdf(high), np.where(levels == 255, p.logsf(low), inner))


@pytest.mark.parametrize("loc", [-20.0, -1.0, 0.4, 1.5, 30.0])
@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 4.0])
def test_discretized_logistic_is_a_difference_of_scipys_logarithms(loc, log_scale):
    levels = np.arange(256)
    parameters = [torch.tensor(value, requires_grad=True) for value in (loc, log_scale)]
    log_p = DiscretizedLogistic(*parameters).log_prob(torch.tensor(levels / 255, dtype=torch.float32))
    np.testing.assert_allclose(
        log_p.detach().numpy(), log_logistic(levels, loc, np.exp(log_scale)), rtol=2e-4, atol=2e-3
    )
    log_p.sum().backward()
    assert all(parameter.grad.isfinite() for parameter in parameters)


def test_a_mixture_of_discretized_logistics_is_the_log_of_their_sum_far_away():
    levels, loc, log_scale = np.arange(256), [-20.0, 2.0], [-3.0, -6.0]
    each = [log_logistic(levels, m, np.exp(s)) for m, s in zip(loc, log_scale)]
    expected = scipy.special.logsumexp(each, axis=0, b=[[0.5], [0.5]])
    p = DiscretizedLogisticMixture(torch.zeros(2), torch.tensor(loc), torch.tensor(log_scale))
    log_p = p.log_prob(torch.tensor(levels / 255, dtype=torch.float32))
    np.testing.assert_allclose(log_p, expected, rtol=2e-4, atol=2e-3)


@pytest.mark.parametrize("dtype, tolerance", [(F64, 1e-9), (torch.float32, 4e-6)])
def test_the_gradient_of_a_continuous_bernoulli_is_that_of_its_formula_by_finite_differences_in_high_precision(
    dtype, tolerance
):
    logits = torch.tensor([-500.0, -30.0, -1.0, -0.07, -0.06, -1e-4, 0.0, 1e-6, 0.06, 0.07, 2.0, 100.0], dtype=dtype)
    logits.requires_grad_(True)
    number = torch.tensor(0.3, dtype=dtype)
    x = number.clone().requires_grad_(True)
    of_logits, of_x = torch.autograd.grad(ContinuousBernoulli(logits).log_prob(x).sum(), (logits, x))

    def log_p(eta):  # 60 digits
        return eta * mpmath.mpf(float(number)) - (mpmath.log((mpmath.exp(eta) - 1) / eta) if eta else 0)

    with mpmath.workdps(60):
        step = mpmath.mpf(10) ** -20
        expected = [
            float((log_p(mpmath.mpf(eta) + step) - log_p(mpmath.mpf(eta) - step)) / (2 * step))
            for eta in logits.tolist()
        ]
    np.testing.assert_allclose(of_logits.numpy(), expected, rtol=0, atol=tolerance)
    assert float(of_x) == pytest.approx(float(logits.detach().sum()), rel=1e-5)
