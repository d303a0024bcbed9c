"""Mixtures agree with torch and SciPy."""

import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from tests.support.densities import F64, FAR, close, infer, shaken
from vae_cli.distributions import (
    DiagonalNormal,
    FullNormalPosterior,
    Mixture,
    MixtureOfNormalsPrior,
)


def test_mixtures_are_torchs():
    prior = shaken(MixtureOfNormalsPrior(3, components=4))
    p, z = prior(infer), torch.randn(7, 5, 3, dtype=F64)
    scale = p.components.scale
    expected = MixtureSameFamily(Categorical(logits=prior.logits), Independent(Normal(prior.loc, scale), 1))
    torch.testing.assert_close(p.log_prob(z), expected.log_prob(z))
    torch.testing.assert_close(p.mean, expected.mean)


def test_a_mixture_of_full_normals_is_what_a_full_posterior_makes_of_it():
    posterior = FullNormalPosterior(2)
    features = torch.randn(3, posterior.features)
    p = Mixture(posterior(features), torch.tensor([0.2, 0.3, 0.5]).log())
    z = torch.randn(6, 2)
    each = torch.stack([posterior(row).log_prob(z) for row in features], -1).exp()
    torch.testing.assert_close(p.log_prob(z).exp(), each @ torch.tensor([0.2, 0.3, 0.5]))
    assert p.rsample_and_log_prob(torch.randn(8, 3))[0].shape == (8, 2)


@pytest.mark.parametrize("far", FAR)
def test_a_mixture_is_the_log_of_the_sum_however_far(far):
    loc, log_scale = torch.tensor([[0.0, 0.0], [3.0, -3.0]]), torch.tensor([[0.0, -1.0], [-2.0, 0.5]])
    z = torch.tensor([far, -far])
    each = scipy.stats.norm(loc.double(), log_scale.double().exp()).logpdf(z.double()).sum(1)
    log_p = Mixture(DiagonalNormal(loc, log_scale), torch.tensor([0.25, 0.75]).log()).log_prob(z)
    close(log_p, scipy.special.logsumexp(each, b=[0.25, 0.75]))
