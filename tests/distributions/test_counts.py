"""Distributions of counts agree with SciPy, and are normalized where float32 ends."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from vae_cli.distributions.counts import (
    GivenTotal,
    NegativeBinomial,
    Poisson,
    ZeroInflated,
    log_rising,
    log_shape_of,
)

MEANS, SHAPES = [1e-6, 0.3, 4.0, 250.0, 1e5], [1e-3, 0.7, 15.99, 16.0, 900.0, 1e7]
X = np.array([0, 1, 2, 7, 60, 3000, 10**6], dtype=np.float64)


def of(value):
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("mean", MEANS)
def test_a_poisson_variable_is_scipys(mean):
    found = Poisson(of(mean).log()).log_prob(of(X))
    np.testing.assert_allclose(found, scipy.stats.poisson(mean).logpmf(X), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mean", MEANS)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_negative_binomial_variable_is_scipys(mean, shape):
    """SciPy's own logpmf loses digits for a large shape: it is held against a sum of logarithms."""
    counts = NegativeBinomial(of(mean).log(), of(shape).log())
    small = X[X <= 3000].astype(int)
    rising = [np.log(shape + np.arange(x)).sum() - np.log(np.arange(1, x + 1)).sum() for x in small]
    expected = (
        rising + shape * np.log(shape / (shape + mean)) if shape < 1e6 else rising - shape * np.log1p(mean / shape)
    )
    expected = expected + small * (np.log(mean) - np.log(shape + mean))
    np.testing.assert_allclose(counts.log_prob(of(small.astype(float))), expected, rtol=1e-9, atol=2e-9)
    if shape < 1e3:
        exact = scipy.stats.nbinom(shape, shape / (shape + mean)).logpmf(X)
        np.testing.assert_allclose(counts.log_prob(of(X)), exact, rtol=1e-7, atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_in_float32_a_count_is_as_near_to_float64_as_the_largest_of_its_terms_is(shape):
    x = torch.tensor([0.0, 1, 5, 40, 800, 50_000])
    for mean in (0.01, 3.0, 1000.0):
        exact = NegativeBinomial(of(mean).log(), of(shape).log()).log_prob(x.double())
        found = NegativeBinomial(torch.tensor(mean).log(), torch.tensor(shape).log()).log_prob(x)
        size = 1 + torch.lgamma(x + 1) + x * abs(np.log(mean)) + mean
        assert ((found - exact).abs() <= 2e-6 * size).all(), (found - exact) / size


def test_gradients_are_finite_and_those_of_finite_differences():
    log_mean = of([-30.0, 0.0, 5.0, 12.0]).requires_grad_()
    log_shape = of([-6.0, 2.7725, 2.7727, 7.0]).requires_grad_()
    gate = of([-40.0, 0.0, 3.0, 40.0]).requires_grad_()
    for value in (of([0.0, 0, 0, 0]), of([1.0, 2, 300, 1e5])):

        def log_p(m, s, g, value=value):
            return ZeroInflated(NegativeBinomial(m, s), g).log_prob(value)

        assert torch.autograd.gradcheck(log_p, (log_mean, log_shape, gate), atol=1e-4)


@pytest.mark.parametrize(
    "counts", [Poisson(of(2.0)), NegativeBinomial(of(1.5), of(-0.5)), NegativeBinomial(of(3.0), of(4.0))]
)
@pytest.mark.parametrize("gate", [None, -3.0, 0.5])
def test_probabilities_sum_to_one_and_have_the_mean_and_the_draws_are_of_them(counts, gate):
    p = counts if gate is None else ZeroInflated(counts, of(gate))
    x = torch.arange(4000, dtype=torch.float64)
    probabilities = p.log_prob(x).exp()
    assert float(probabilities.sum()) == pytest.approx(1, abs=1e-9)
    assert float((x * probabilities).sum()) == pytest.approx(float(p.mean), rel=1e-8)
    torch.manual_seed(0)
    drawn = p.sample((20_000,))
    variance = float((x.square() * probabilities).sum()) - float(p.mean) ** 2
    assert float(drawn.mean()) == pytest.approx(float(p.mean), abs=4 * (variance / 20_000) ** 0.5)
    assert float((drawn == 0).double().mean()) == pytest.approx(float(probabilities[0]), abs=0.015)


@pytest.mark.parametrize("start", [1e-3, 3.0, 15.9, 16.0, 17.0, 1e4, 1e8])
def test_the_logarithm_of_a_rising_factorial_is_a_sum_of_logarithms(start):
    steps = np.array([0, 1, 5, 400])
    expected = [np.log(start + np.arange(n)).sum() for n in steps]
    np.testing.assert_allclose(log_rising(of(start), of(steps.astype(float))), expected, rtol=1e-9, atol=1e-9)


def test_counts_given_their_total_have_its_shares_and_none_of_none_are_certain():
    log_share = torch.log_softmax(torch.randn(2, 3, 5, dtype=torch.float64), -1)
    p = GivenTotal(log_share, Poisson, 1, of(40.0).log())
    x = of([[0, 2, 5, 0, 1], [0, 0, 0, 0, 0], [30, 1, 0, 0, 9]])
    found = p.log_prob(x.double())
    expected = scipy.stats.poisson(log_share.exp() * x.sum(-1, keepdim=True)).logpmf(x)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert (found[:, 1] == 0).all()
    torch.testing.assert_close(p.mean.sum(-1), of(40.0).expand(2, 3))


def test_the_shape_is_that_of_the_moments():
    mean, shape = of(3.0), of(0.8)
    log_shape = log_shape_of(mean, mean + mean.square() / shape, 1e-3, 1e3)
    assert float(log_shape.exp()) == pytest.approx(0.8)
    assert float(log_shape_of(mean, mean, 1e-3, 1e3).exp()) == pytest.approx(1e3)
