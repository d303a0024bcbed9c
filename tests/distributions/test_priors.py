"""Priors are normalized, and draw what their densities say."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from tests.support.annotations import takes
from tests.support.densities import F64, grid, infer, shaken
from vae_cli.distributions import (
    DiagonalNormal,
    FlowPrior,
    LearnedNormalPrior,
    MixtureOfNormalsPrior,
    VampPrior,
)
from vae_cli.distributions.factorized import as_latent

# A new prior's density must lie within ±14; its heavy tails, if any, are for a test of its own.
PRIORS = {
    "learned_normal": lambda: LearnedNormalPrior(2),
    "mixture": lambda: MixtureOfNormalsPrior(2, components=3),
    "vampprior": lambda: VampPrior(2, (1, 2, 2), components=4),
    **{f"flow {kind}": lambda kind=kind: FlowPrior(2, kind, 2, (8,)) for kind in ("coupling", "maf", "nsf")},
}


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_a_prior_integrates_to_one_and_its_draws_have_its_moments(name):
    p = as_latent(shaken(PRIORS[name]())(infer))
    z, cell = grid(14)
    density = p.log_prob(z).exp() * cell
    assert float(density.sum()) == pytest.approx(1, abs=2e-3)
    prior = PRIORS[name]()
    drawn, log_prob = p.rsample_and_log_prob(torch.randn(20_000, prior.noise_dim, dtype=F64))
    torch.testing.assert_close(log_prob, p.log_prob(drawn), rtol=0, atol=1e-6)
    mean = (density.unsqueeze(-1) * z).sum((0, 1))
    variance = (density.unsqueeze(-1) * (z - mean).square()).sum((0, 1))
    assert ((drawn.mean(0) - mean).abs() < 5 * (variance / 20_000).sqrt() + 1e-2).all()
    assert ((drawn.var(0) / variance - 1).abs() < 0.1).all()


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_a_priors_draws_follow_its_marginal_distribution(name):
    """Kolmogorov and Smirnov: 4,000 draws against the density's own marginal, at the 1e-4 level."""
    prior = shaken(PRIORS[name]())
    p = as_latent(prior(infer))
    z, cell = grid(14)
    marginal = (p.log_prob(z).exp().sum(1) * math.sqrt(cell)).cumsum(0).numpy() * math.sqrt(cell)
    drawn, _ = p.rsample_and_log_prob(torch.randn(4000, prior.noise_dim, dtype=F64))
    line = z[:, 0, 0].numpy() + math.sqrt(cell) / 2
    statistic = scipy.stats.kstest(drawn[:, 0].numpy(), lambda v: np.interp(v, line, marginal)).statistic
    assert statistic < scipy.stats.kstwo.isf(1e-4, 4000) + 2e-3


def test_a_vampprior_is_the_even_mixture_of_its_pseudo_inputs_posteriors():
    prior = shaken(VampPrior(2, (1, 2, 2), components=4))
    q = infer(prior.logits.sigmoid())
    expected = MixtureSameFamily(Categorical(logits=torch.zeros(4, dtype=F64)), Independent(Normal(q.loc, q.scale), 1))
    z = torch.randn(7, 2, dtype=F64)
    torch.testing.assert_close(prior(infer).log_prob(z), expected.log_prob(z))


def test_a_vampprior_draws_from_all_its_components_evenly():
    prior = VampPrior(1, (1, 1, 1), components=5)
    far = torch.tensor([[-20.0], [-10.0], [0.0], [10.0], [20.0]])
    p = prior(lambda x: DiagonalNormal(far, torch.zeros(5, 1)))
    z, _ = p.rsample_and_log_prob(torch.randn(5000, 2))
    counts = torch.bincount(((z[:, 0] + 25) / 10).long(), minlength=5)
    assert scipy.stats.chisquare(counts.numpy()).pvalue > 1e-4


def test_a_vampprior_starts_at_training_images():
    prior, images = VampPrior(2, (1, 2, 2), components=3), torch.rand(3, 1, 2, 2)
    assert prior.starting_images == 3 and VampPrior(2, (1, 2, 2), 3, "random").starting_images == 0
    prior.start_at(images)
    torch.testing.assert_close(prior.logits.sigmoid(), images.clamp(0.02, 0.98))
    assert not takes(VampPrior, "start", "images")


@pytest.mark.parametrize("make", [lambda: MixtureOfNormalsPrior(2, 4), lambda: VampPrior(2, (1, 2, 2), 4)])
def test_temperature_narrows_every_component_and_prefers_none(make):
    prior = shaken(make())
    p, noise = prior(infer), torch.randn(4000, 3, dtype=F64)
    warm, _ = p.rsample_and_log_prob(noise)
    cold, _ = p.rsample_and_log_prob(prior.tempered(noise, 0.0))
    means = p.components.loc
    chosen = torch.cdist(cold, means).argmin(1)
    torch.testing.assert_close(cold, means[chosen])
    expected = p.log_weights.exp() * 4000
    assert scipy.stats.chisquare(torch.bincount(chosen, minlength=4).numpy(), expected.detach().numpy()).pvalue > 1e-4
    torch.testing.assert_close(p.rsample_and_log_prob(prior.tempered(noise, 1.0))[0], warm)


@pytest.mark.parametrize(("components", "examples", "fewer"), [(500, 50_000, None), (400, 4000, None), (1, 3, None)])
def test_a_vampprior_of_ten_examples_for_each_pseudo_input_is_not_warned_of(components, examples, fewer):
    assert VampPrior(2, (1, 2, 2), components).warning(examples, "image") is fewer


def test_a_vampprior_of_more_pseudo_inputs_than_the_examples_bear_is_warned_of():
    text = VampPrior(2, (3,), 500).warning(4000, "row")
    assert text is not None and "500 pseudo-inputs for 4,000 training rows" in text
    assert text.endswith("prior.components=200")
    assert VampPrior(2, (3,), 401).warning(4000, "row") and VampPrior(2, (3,), 2).warning(9, "row").endswith("=1")
    assert MixtureOfNormalsPrior(2, components=500).warning(4000, "row") is None
