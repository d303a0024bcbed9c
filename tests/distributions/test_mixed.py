"""Rows of several kinds of columns: each has its own distribution, and together they are normalized."""

import itertools

import numpy as np
import pytest
import scipy.stats
import torch

from tests.support.annotations import takes
from vae_cli.data.columns import Column, kinds_of
from vae_cli.distributions import MixedLikelihood, StudentTLikelihood
from vae_cli.distributions.mixed import OneHot
from vae_cli.models.preprocessing import Preprocessing

COLUMNS = (
    Column("town", "categorical", ("a", "b", "c")),
    Column("age", "real"),
    Column("sex", "binary", ("f", "m")),
    Column("visits", "counts"),
    Column("grade", "categorical", ("x", "y", "z", "w")),
    Column("wage", "real"),
)
D = 11
MEAN = torch.tensor([0.2, 0.5, 0.3, 0.0, 0.4, 3.0, 0.1, 0.2, 0.3, 0.4, 0.0])
STD = torch.tensor([0.4, 0.5, 0.46, 1.0, 0.49, 3.0, 0.3, 0.4, 0.46, 0.49, 1.0])


def mixed(columns, **settings):
    kinds = kinds_of(columns)
    sizes = [column.size for column in columns if column.kind == "categorical"]
    return MixedLikelihood((len(kinds),), kinds, sizes, **settings)


def started(**settings):
    likelihood = mixed(COLUMNS, **settings)
    return likelihood, likelihood.start_at(MEAN, STD)


@pytest.mark.parametrize("real", ["normal", "laplace", "student_t"])
@pytest.mark.parametrize("counts", ["poisson", "negative_binomial", "zero_inflated_negative_binomial"])
@pytest.mark.parametrize("scale", ["per_position", "per_pixel", "learned"])
def test_a_row_starts_at_the_columns_means_and_has_numbers_and_gradients(real, counts, scale):
    likelihood, output = started(real=real, counts=counts, scale=scale)
    assert tuple(output.shape) == likelihood.output_shape
    p = likelihood(output.expand(5, 2, -1))
    torch.testing.assert_close(p.mean[0, 0], MEAN, atol=0.2, rtol=0.02)
    x = p.sample()
    assert x.shape == (5, 2, D) and (x[..., :3].sum(-1) == 1).all() and (x[..., 6:10].sum(-1) == 1).all()
    wild = (30 * torch.randn(5, 2, *likelihood.output_shape)).requires_grad_()
    log_p = likelihood(wild).log_prob(x)
    log_p.sum().backward()
    assert log_p.shape == (5, 2) and log_p.isfinite().all() and wild.grad.isfinite().all()


def test_a_rows_log_probability_is_the_sum_of_scipys_over_its_columns():
    likelihood, _ = started(counts="poisson")
    output = torch.randn(likelihood.output_shape)
    parts = dict(zip(likelihood.kinds, likelihood(output).base_dist.parts))
    x = torch.tensor([0, 1, 0, 0.7, 1, 2, 0, 0, 0, 1, -0.4])
    log_p = parts["categorical"].log_p
    expected = float(log_p[1] + log_p[3 + 3])
    assert float(log_p[:3].exp().sum()) == pytest.approx(1) and float(log_p[3:].exp().sum()) == pytest.approx(1)
    normal = parts["real"]
    expected += scipy.stats.norm(normal.loc.detach(), normal.scale.detach()).logpdf([0.7, -0.4]).sum()
    expected += scipy.stats.bernoulli(float(parts["binary"].mean)).logpmf(1)
    expected += scipy.stats.poisson(float(parts["counts"].mean)).logpmf(2)
    assert float(likelihood(output).log_prob(x)) == pytest.approx(float(expected), rel=1e-5)


def test_rows_of_categories_bits_and_counts_sum_to_one():
    columns = (Column("b", "binary", ("n", "y")), Column("c", "counts"), Column("t", "categorical", ("u", "v", "w")))
    likelihood = mixed(columns, counts="poisson").double()
    assert likelihood.discrete
    output = torch.randn(likelihood.output_shape, dtype=torch.float64)
    rows = [[b, n, *np.eye(3)[k]] for b, n, k in itertools.product(range(2), range(60), range(3))]
    total = likelihood(output).log_prob(torch.tensor(rows, dtype=torch.float64)).exp().sum()
    assert float(total.detach()) == pytest.approx(1, abs=1e-9)


def test_a_missing_category_has_no_part_in_a_row():
    kinds = kinds_of(COLUMNS)
    preprocessing = Preprocessing((D,), [k == "counts" for k in kinds], [k == "real" for k in kinds], True)
    preprocessing.start_at(torch.full((D,), 5.0), torch.full((D,), 2.0))
    likelihood, output = started()
    x = torch.tensor([0, 1, 0, 7.0, 1, 2, 0, 0, 0, 1, 4.0])
    gap = x.clone()
    gap[6:10] = torch.nan
    p = preprocessing.in_data_units(likelihood(output))
    share = dict(zip(likelihood.kinds, likelihood(output).base_dist.parts))["categorical"].log_p[3 + 3]
    assert float(p.log_prob(gap)) == pytest.approx(float(p.log_prob(x) - share), rel=1e-5)
    seen = preprocessing(gap[None])[0]
    assert (
        seen[3] == 1 and seen[5] == pytest.approx(np.log(3)) and (seen[6:10] == 0).all() and seen[D + 6 : D + 10].all()
    )


def test_one_hot_vectors_are_drawn_with_their_probabilities():
    p = OneHot(torch.tensor([0.0, 1.0, -1.0, 2.0, 0.0]), [3, 2])
    torch.manual_seed(0)
    drawn = p.sample((20_000,))
    expected = np.concatenate([np.exp(b) / np.exp(b).sum() for b in (np.array([0, 1, -1.0]), np.array([2.0, 0]))])
    np.testing.assert_allclose(drawn.mean(0), expected, atol=0.015)
    np.testing.assert_allclose(p.mean, expected, rtol=1e-5)


@pytest.mark.parametrize("degrees", [2.5, 7.0, 100.0])
def test_a_students_t_is_scipys_even_far_away(degrees):
    likelihood = StudentTLikelihood((3,), 0.3, degrees)
    loc, x = torch.tensor([0.0, 1.0, -1.0]), torch.tensor([0.1, 50.0, -1e6])
    expected = scipy.stats.t(degrees, loc, 0.3).logpdf(x).sum()
    assert float(likelihood(loc).log_prob(x)) == pytest.approx(expected, rel=1e-5)
    assert not list(likelihood.parameters()) and len(list(StudentTLikelihood((3,)).parameters())) == 2
    assert not takes(StudentTLikelihood, "degrees", 2.0) and takes(StudentTLikelihood, "degrees", "learned")
