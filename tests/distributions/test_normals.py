"""Normal distributions agree with torch and SciPy, far from where the mass is too."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from tests.support.densities import F64, FAR, close, random_normals
from vae_cli.distributions import (
    DiagonalNormal,
    FullNormal,
)


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


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 4.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0])
def test_float32_densities_of_every_pair_are_as_exact_as_those_of_one(log_scale, spread):
    """Multiplied out, the squares are of the size of (z/σ)² even where z is a component's mean."""
    loc = spread * torch.randn(6, 3)
    p = DiagonalNormal(loc, torch.full((6, 3), log_scale) + 0.3 * torch.randn(6, 3))
    z = torch.stack([p.rsample_and_log_prob(torch.randn(4, 6, 3))[0], spread * torch.randn(4, 6, 3)]).flatten(1, 2)
    expected = scipy.stats.norm(p.loc.double(), p.log_scale.double().exp()).logpdf(z.double().unsqueeze(2)).sum(-1)
    log_p = p.log_prob_of_all(z)
    assert log_p.dtype is torch.float32 and log_p.shape == (2, 24, 6)
    np.testing.assert_allclose(log_p.double(), expected, rtol=1e-6, atol=1e-5)


def test_densities_of_every_pair_have_the_gradients_of_those_of_one():
    loc, log_scale, z = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64), torch.randn(2, 5, 3, dtype=F64)
    weights = torch.randn(2, 5, 4, dtype=F64)
    gradients = []
    for each in (
        DiagonalNormal.log_prob_of_all,
        lambda p, value: Independent(Normal(p.loc, p.scale), 1).log_prob(value[..., None, :]),
    ):
        leaves = [value.clone().requires_grad_() for value in (loc, log_scale, z)]
        (each(DiagonalNormal(*leaves[:2]), leaves[2]) * weights).sum().backward()
        gradients.append([leaf.grad for leaf in leaves])
    for own, expected in zip(*gradients):
        torch.testing.assert_close(own, expected)


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
