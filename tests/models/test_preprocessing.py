"""Densities in the data's own units, of what is observed."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Independent, Normal

from vae_cli.distributions import NormalLikelihood, PoissonLikelihood
from vae_cli.models.preprocessing import Observed, Preprocessing


def standardizing(center, scale, **settings):
    preprocessing = Preprocessing((len(center),), **settings)
    preprocessing.start_at(torch.tensor(center), torch.tensor(scale))
    return preprocessing


def test_a_density_is_scipys_in_the_datas_units_and_its_draws_and_moments_are_too():
    center, scale = [100.0, -3.0, 0.0], [20.0, 0.01, 1.0]
    p = standardizing(center, scale).in_data_units(NormalLikelihood((3,), 0.5)(torch.tensor([[1.0, 0.0, -2.0]])))
    loc, std = np.array([120.0, -3.0, -2.0]), 0.5 * np.array(scale)
    x = torch.tensor([[115.0, -2.99, 0.3], [90.0, -3.01, -4.0]])
    expected = scipy.stats.norm(loc, std).logpdf(x.double()).sum(1)
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-4)
    np.testing.assert_allclose(p.mean[0], loc, rtol=1e-6)
    np.testing.assert_allclose(p.variance[0], std**2, rtol=1e-5)
    torch.manual_seed(0)
    drawn = p.sample((4000,))[:, 0].double()
    np.testing.assert_allclose(drawn.mean(0), loc, atol=4 * std.max() / 60)
    np.testing.assert_allclose(drawn.std(0), std, rtol=0.05)


def test_what_is_missing_has_no_part_in_the_density_nor_in_its_gradient():
    loc = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    p = Observed(Independent(Normal(loc, torch.ones_like(loc)), 1), torch.zeros(3), torch.full((3,), 2.0))
    x = torch.randn(5, 3, dtype=torch.float64)
    x[0, 1] = x[3] = torch.nan
    log_p = p.log_prob(x)
    log_p.sum().backward()
    each = scipy.stats.norm(2 * loc.detach(), 2).logpdf(x)
    np.testing.assert_allclose(log_p.detach(), np.nansum(each, -1), atol=1e-12)
    assert (log_p[:, 3] == 0).all() and (loc.grad[:, 3] == 0).all() and (loc.grad[:, 0, 1] == 0).all()
    assert loc.grad.isfinite().all() and (loc.grad[:, 1] != 0).all()


def test_missing_counts_have_no_part_either():
    likelihood = PoissonLikelihood((3,))
    p = Preprocessing((3,), True, False).in_data_units(likelihood(torch.tensor([[0.0, 1.0, 2.0]])))
    x = torch.tensor([[2.0, torch.nan, 7.0]])
    expected = scipy.stats.poisson([1, np.exp(2)]).logpmf([2, 7]).sum()
    assert float(p.log_prob(x)) == pytest.approx(expected, rel=1e-5)
    torch.testing.assert_close(p.mean, likelihood(torch.tensor([[0.0, 1.0, 2.0]])).mean)


@pytest.mark.parametrize("has_missing", [False, True])
def test_the_encoder_sees_standardized_values_zeros_for_missing_ones_and_a_mask_where_training_had_any(has_missing):
    preprocessing = standardizing([10.0, 0.0], [5.0, 2.0], has_missing=has_missing)
    seen = preprocessing(torch.tensor([[20.0, torch.nan], [10.0, -2.0]]))
    values = torch.tensor([[2.0, 0.0], [0.0, -1.0]])
    mask = torch.tensor([[0.0, 1.0], [0.0, 0.0]])
    torch.testing.assert_close(seen, torch.cat([values, mask], 1) if has_missing else values)
    assert seen.shape[1:] == preprocessing.seen_shape


@pytest.mark.parametrize("is_count", [False, True])
def test_the_inverse_gives_the_example_back(is_count):
    preprocessing = Preprocessing((4,), is_count, not is_count)
    if not is_count:
        preprocessing.start_at(torch.randn(4), 1 + torch.rand(4))
    x = torch.poisson(torch.full((6, 4), 30.0)) if is_count else torch.randn(6, 4)
    torch.testing.assert_close(preprocessing.inverse(preprocessing(x)), x)
    assert preprocessing.state_dict().keys() == {"center", "scale"}
