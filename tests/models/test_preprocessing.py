"""Densities in the data's own units, of what is observed."""

from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Independent, Normal

from vae_cli.data import Split
from vae_cli.distributions import BernoulliLikelihood, NormalLikelihood, PoissonLikelihood
from vae_cli.distributions.observed import Observed
from vae_cli.models.preprocessing import Preprocessing
from vae_cli.training.initialization import measure


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


def test_entropy_mode_and_expansion_are_those_of_the_datas_units():
    p = Observed(
        Independent(Normal(torch.zeros(2), torch.ones(2)), 1), torch.tensor([100.0, 5.0]), torch.tensor([10.0, 2.0])
    )
    plain = Independent(Normal(torch.tensor([100.0, 5.0]), torch.tensor([10.0, 2.0])), 1)
    torch.testing.assert_close(p.entropy(), plain.entropy())
    torch.testing.assert_close(p.mode, plain.mode)
    x = torch.tensor([90.0, 4.0])
    torch.testing.assert_close(p.expand((3,)).log_prob(x), plain.expand((3,)).log_prob(x))


def test_of_missing_counts_the_total_is_that_of_the_others():
    likelihood = PoissonLikelihood((3,), offset="total")
    likelihood.set_total(torch.tensor(8.0))
    shares, x = np.array([0.5, 0.25, 0.25]), torch.tensor([[10.0, torch.nan, 5.0], [0.0, 4.0, 0.0]])
    p = Preprocessing((3,), True, False).in_data_units(likelihood(torch.tensor(np.log(shares)).float().expand(2, 3)))
    expected = (
        scipy.stats.poisson([10, 5]).logpmf([10, 5]).sum(),
        scipy.stats.poisson(4 * shares).logpmf([0, 4, 0]).sum(),
    )
    np.testing.assert_allclose(p.log_prob(x), expected, rtol=1e-5)
    np.testing.assert_allclose(p.mean[0], 8 * shares, rtol=1e-6)  # of a draw
    np.testing.assert_allclose(p.given(x).mean, [[10, 5, 5], 4 * shares], rtol=1e-6)  # of what was observed


@pytest.mark.parametrize("kind", ["binary", "unit"])
def test_bits_may_be_missing_too(kind):
    likelihood = BernoulliLikelihood((3,)) if kind == "binary" else NormalLikelihood((3,), 0.5)
    output, x = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, torch.nan, 0.0]])
    p = Preprocessing((3,), False, False).in_data_units(likelihood(output))
    of_values = scipy.stats.bernoulli(1 / (1 + np.exp(-np.array([0.3, 2.0])))) if kind == "binary" else None
    expected = of_values.logpmf([1, 0]) if kind == "binary" else scipy.stats.norm([0.3, 2], 0.5).logpdf([1, 0])
    assert float(p.log_prob(x)) == pytest.approx(expected.sum(), rel=1e-5)


def test_the_encoder_sees_the_trainings_mean_where_a_value_is_missing_whatever_its_kind():
    preprocessing = Preprocessing((3,), [True, False, False], [False, True, False])
    x = torch.tensor([[3.0, 10.0, 1.0], [torch.nan, 30.0, 0.0], [0.0, torch.nan, torch.nan], [7.0, 20.0, 1.0]])
    model = SimpleNamespace(preprocessing=preprocessing, likelihood=None)
    measure(model, Split(x, None, 1.0), "zscore")
    seen = preprocessing(torch.full((1, 3), torch.nan))
    torch.testing.assert_close(seen, torch.tensor([[np.log1p([3, 0, 7]).mean(), 0, 2 / 3]], dtype=torch.float32))


def test_a_column_whose_quartiles_are_the_same_has_its_standard_deviation():
    x = torch.cat([torch.zeros(80, 1), 1e6 + torch.randn(20, 1)])
    preprocessing = Preprocessing((1,))
    measure(SimpleNamespace(preprocessing=preprocessing, likelihood=None), Split(x, None, 1.0), "robust")
    assert float(preprocessing.center) == 0 and float(preprocessing.scale) == pytest.approx(4e5, rel=0.01)


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
    assert preprocessing.state_dict().keys() == {"center", "scale", "usual"}
