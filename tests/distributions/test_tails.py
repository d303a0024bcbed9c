"""Log-densities far from where the mass is: float32 against float64 formulas of scipy, finite with finite gradients."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from vae_cli.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulli,
    DiagonalNormal,
    DiscretizedLogistic,
    DiscretizedLogisticMixture,
    FlowPosterior,
    FlowPrior,
    FullNormal,
    LaplaceLikelihood,
    Mixture,
    NormalLikelihood,
)

FAR = [0.0, 1.0, 30.0, 1e3, 1e6]


def close(found, expected):
    np.testing.assert_allclose(found.detach().double().numpy(), expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("far", FAR)
def test_a_diagonal_normal_is_scipys_however_far(far):
    loc, log_scale = torch.tensor([0.3, -2.0]), torch.tensor([-3.0, 1.0])
    z = torch.tensor([far, -far])
    expected = scipy.stats.norm(loc.double(), log_scale.double().exp()).logpdf(z.double()).sum()
    close(DiagonalNormal(loc, log_scale).log_prob(z), expected)


@pytest.mark.parametrize("far", FAR)
def test_a_full_normal_is_scipys_however_far(far):
    factor = torch.tensor([[0.2, 0.0], [-1.5, 0.7]])
    z = torch.tensor([far, -far])
    covariance = (factor.double() @ factor.double().T).numpy()
    expected = scipy.stats.multivariate_normal(np.zeros(2), covariance).logpdf(z.double())
    close(FullNormal(torch.zeros(2), factor).log_prob(z), expected)


@pytest.mark.parametrize("far", FAR)
def test_a_mixture_is_the_log_of_the_sum_however_far(far):
    loc, log_scale = torch.tensor([[0.0, 0.0], [3.0, -3.0]]), torch.tensor([[0.0, -1.0], [-2.0, 0.5]])
    z = torch.tensor([far, -far])
    each = scipy.stats.norm(loc.double(), log_scale.double().exp()).logpdf(z.double()).sum(1)
    found = Mixture(DiagonalNormal(loc, log_scale), torch.tensor([0.25, 0.75]).log()).log_prob(z)
    close(found, scipy.special.logsumexp(each, b=[0.25, 0.75]))


@pytest.mark.parametrize("kind", ["coupling", "maf", "nsf"])
@pytest.mark.parametrize("far", FAR[:-1])
def test_a_flow_stays_finite_with_finite_gradients(kind, far):
    torch.manual_seed(0)
    posterior, prior = FlowPosterior(2, kind, context=3), FlowPrior(2, kind)
    features = torch.randn(4, posterior.features, requires_grad=True)
    z = far * torch.randn(4, 2)
    total = posterior(features).log_prob(z) + prior(lambda x: None).log_prob(z)
    total.sum().backward()
    assert total.isfinite().all() and features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in [*posterior.parameters(), *prior.parameters()] if p.grad is not None)


@pytest.mark.parametrize("logit", [-1e6, -200.0, -3.0, 0.0, 3.0, 200.0, 1e6])
def test_bernoulli_is_scipys_log_expit(logit):
    p = BernoulliLikelihood((1, 1, 2))(torch.full((1, 1, 2), logit))
    close(p.log_prob(torch.tensor([[[1.0, 0.0]]])), scipy.special.log_expit(logit) + scipy.special.log_expit(-logit))


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
    found = DiscretizedLogistic(*parameters).log_prob(torch.tensor(levels / 255, dtype=torch.float32))
    np.testing.assert_allclose(
        found.detach().numpy(), log_logistic(levels, loc, np.exp(log_scale)), rtol=2e-4, atol=2e-3
    )
    found.sum().backward()
    assert all(parameter.grad.isfinite() for parameter in parameters)


def test_a_mixture_of_discretized_logistics_is_the_log_of_their_sum_far_away():
    levels, loc, log_scale = np.arange(256), [-20.0, 2.0], [-3.0, -6.0]
    each = [log_logistic(levels, m, np.exp(s)) for m, s in zip(loc, log_scale)]
    expected = scipy.special.logsumexp(each, axis=0, b=[[0.5], [0.5]])
    p = DiscretizedLogisticMixture(torch.zeros(2), torch.tensor(loc), torch.tensor(log_scale))
    found = p.log_prob(torch.tensor(levels / 255, dtype=torch.float32))
    np.testing.assert_allclose(found, expected, rtol=2e-4, atol=2e-3)


def test_a_categorical_is_scipys_log_softmax_for_wild_logits():
    likelihood = CategoricalLikelihood((1, 1, 1))
    logits = 1e4 * torch.randn(1, 256, 1, 1)
    levels = torch.arange(256).reshape(-1, 1, 1, 1) / 255
    close(likelihood(logits).log_prob(levels), scipy.special.log_softmax(logits.double().flatten().numpy()))


@pytest.mark.parametrize("far", FAR)
def test_densities_of_pixels_are_exact_however_far(far):
    loc, x = torch.full((1, 1, 1), far), torch.full((1, 1, 1), 0.5)
    normal, laplace = NormalLikelihood((1, 1, 1), scale=0.05), LaplaceLikelihood((1, 1, 1), scale=0.05)
    scale = float(normal.log_scale.double().exp())
    close(normal(loc).log_prob(x), scipy.stats.norm(far, scale).logpdf(0.5))
    close(laplace(loc).log_prob(x), -abs(far - 0.5) / scale - np.log(2 * scale))  # scipy's own underflows
