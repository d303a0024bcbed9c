"""Heads of counts: what the decoder gives, where they start, and what a total does."""

import numpy as np
import pytest
import scipy.stats
import torch

from tests.support.annotations import takes
from vae_cli.distributions import (
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)

HEADS = [PoissonLikelihood, NegativeBinomialLikelihood, ZeroInflatedNegativeBinomialLikelihood]


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("offset", ["none", "total"])
def test_counts_of_any_shape_start_at_the_trainings_mean(cls, shape, offset):
    likelihood = cls(shape, offset=offset)
    mean = 5 * torch.rand(shape) + 0.1
    output = likelihood.start_at(mean, (mean + mean.square()).sqrt())
    likelihood.set_total(mean.sum())
    assert tuple(output.shape) == likelihood.output_shape
    p = likelihood(output.expand(7, 2, *output.shape))
    assert p.batch_shape == (7, 2) and p.mean.shape == p.sample().shape == (7, 2, *shape)
    torch.testing.assert_close(p.mean[0, 0], mean, rtol=0.06, atol=0)
    x = torch.poisson(mean.expand(2, *shape))
    total = p.log_prob(x)
    assert total.shape == (7, 2) and total.isfinite().all()
    if cls is NegativeBinomialLikelihood and offset == "none":  # a variance of μ + μ² is that of θ = 1
        expected = scipy.stats.nbinom(1, 1 / (1 + mean.double())).logpmf(x.double()).reshape(2, -1).sum(1)
        np.testing.assert_allclose(total[0].detach(), expected, rtol=1e-4)


@pytest.mark.parametrize("dispersion", ["learned", "per_position", "per_value", 2.5])
def test_a_dispersion_is_shared_a_columns_the_decoders_or_a_number(dispersion):
    likelihood = NegativeBinomialLikelihood((4,), dispersion)
    mean = torch.tensor([0.5, 2.0, 9.0, 40.0])
    shapes = torch.tensor([0.5, 1.0, 4.0, 8.0])
    output = likelihood.start_at(mean, (mean + mean.square() / shapes).sqrt())
    found = likelihood(output).base_dist.log_shape.exp().detach()
    expected = {"learned": shapes.log().mean().exp().expand(4), 2.5: torch.full((4,), 2.5)}.get(dispersion, shapes)
    torch.testing.assert_close(found, expected)
    learned = {"learned": [()], "per_position": [(4,)]}.get(dispersion, [])
    assert [tuple(p.shape) for p in likelihood.parameters()] == learned


@pytest.mark.parametrize("cls", HEADS)
@pytest.mark.parametrize("offset", ["none", "total"])
def test_numbers_and_gradients_are_finite_for_wild_outputs(cls, offset):
    likelihood = cls((6,), offset=offset)
    x = torch.tensor([[0.0, 0, 0, 0, 0, 0], [0, 1, 70, 3000, 0, 10**6]])
    for size in (1.0, 30.0, 1e4):
        output = (size * torch.randn(9, 2, *likelihood.output_shape)).requires_grad_()
        total = likelihood(output).log_prob(x)
        total.sum().backward()
        assert total.isfinite().all() and output.grad.isfinite().all()


def test_with_a_total_only_shares_count():
    likelihood = PoissonLikelihood((3,), "total")
    output, x = torch.randn(5, 3), torch.tensor([2.0, 0.0, 6.0])
    expected = scipy.stats.poisson(8 * output.double().softmax(-1)).logpmf(x).sum(-1)
    np.testing.assert_allclose(likelihood(output).log_prob(x), expected, rtol=1e-5)
    torch.testing.assert_close(likelihood(output + 100).log_prob(x), likelihood(output).log_prob(x))


@pytest.mark.parametrize("dispersion", [0, -1.0, "per_gene", None])
def test_annotations_refuse_a_dispersion_that_is_none(dispersion):
    assert not takes(NegativeBinomialLikelihood, "dispersion", dispersion)
    assert takes(NegativeBinomialLikelihood, "dispersion", "per_value")
    assert not takes(PoissonLikelihood, "offset", "size")
