"""Priors, posteriors and likelihoods beyond the plain ones: normalized, sampled as they say, and frozen on request."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from vae_cli.distributions import (
    CategoricalLikelihood,
    DiagonalNormal,
    DiscretizedLogisticMixture,
    DiscretizedLogisticMixtureLikelihood,
    FlowPosterior,
    FlowPrior,
    FullNormalPosterior,
    LaplaceLikelihood,
    LearnedNormalPrior,
    Levels,
    Mixture,
    MixtureOfNormalsPrior,
    NormalLikelihood,
    VampPrior,
    log_prob_by_each,
)
from vae_cli.errors import ConfigError

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def infer(x):
    """A posterior that depends on the image."""
    mean = x.flatten(1).mean(1)
    return DiagonalNormal(torch.stack([4 * mean - 2, 1 - mean], 1), torch.stack([mean - 1, -mean], 1))


def shaken(module):
    """With parameters away from where they start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


PRIORS = {
    "learned_normal": lambda: LearnedNormalPrior(2),
    "mixture": lambda: MixtureOfNormalsPrior(2, components=3),
    "vampprior": lambda: VampPrior(2, (1, 2, 2), components=4),
    **{f"flow {kind}": lambda kind=kind: FlowPrior(2, kind, 2, (8,)) for kind in ("coupling", "maf", "nsf")},
}


def grid(half_width, points=401):
    line = torch.linspace(-half_width, half_width, points, dtype=F64)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1), float((line[1] - line[0]) ** 2)


@pytest.mark.parametrize("name", PRIORS)
@torch.no_grad()
def test_a_prior_integrates_to_one_and_its_draws_have_its_moments(name):
    p = shaken(PRIORS[name]())(infer)
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
    p = prior(infer)
    z, cell = grid(14)
    marginal = (p.log_prob(z).exp().sum(1) * math.sqrt(cell)).cumsum(0).numpy() * math.sqrt(cell)
    drawn, _ = p.rsample_and_log_prob(torch.randn(4000, prior.noise_dim, dtype=F64))
    line = z[:, 0, 0].numpy() + math.sqrt(cell) / 2
    statistic = scipy.stats.kstest(drawn[:, 0].numpy(), lambda v: np.interp(v, line, marginal)).statistic
    assert statistic < scipy.stats.kstwo.isf(1e-4, 4000) + 2e-3


@pytest.mark.parametrize("kind", ["maf", "nsf", "coupling"])
@torch.no_grad()
def test_a_flow_posterior_integrates_to_one_and_knows_the_density_of_its_draws(kind):
    posterior = shaken(FlowPosterior(2, kind, 2, (8,), context=3, bins=4))
    features = 0.5 * torch.randn(1, posterior.features, dtype=F64)
    features[:, 2:4] = 0
    q = posterior(features)
    z, cell = grid(25, 1001) if kind == "maf" else grid(6, 501)
    total = sum(float(q.log_prob(row.unsqueeze(-2)).exp().sum()) for row in z) * cell
    assert total == pytest.approx(1, abs=1e-3)
    drawn, log_prob = q.rsample_and_log_prob(torch.randn(50, 1, 2, dtype=F64))
    torch.testing.assert_close(log_prob, q.log_prob(drawn), rtol=0, atol=1e-6)


def test_mixtures_are_torchs():
    prior = shaken(MixtureOfNormalsPrior(3, components=4))
    p, z = prior(infer), torch.randn(7, 5, 3, dtype=F64)
    scale = p.components.scale
    expected = MixtureSameFamily(Categorical(logits=prior.logits), Independent(Normal(prior.loc, scale), 1))
    torch.testing.assert_close(p.log_prob(z), expected.log_prob(z))
    torch.testing.assert_close(p.mean, expected.mean)


@pytest.mark.parametrize("log_scale", [-7.0, -4.0, 0.0, 4.0])
@pytest.mark.parametrize("spread", [0.0, 1.0, 100.0])
def test_float32_densities_of_every_pair_are_as_exact_as_those_of_one(log_scale, spread):
    """Multiplied out, the squares are of the size of (z/σ)² even where z is a component's mean."""
    loc = spread * torch.randn(6, 3)
    p = DiagonalNormal(loc, torch.full((6, 3), log_scale) + 0.3 * torch.randn(6, 3))
    z = torch.stack([p.rsample_and_log_prob(torch.randn(4, 6, 3))[0], spread * torch.randn(4, 6, 3)]).flatten(1, 2)
    expected = scipy.stats.norm(p.loc.double(), p.log_scale.double().exp()).logpdf(z.double().unsqueeze(2)).sum(-1)
    found = log_prob_by_each(p, z)
    assert found.dtype is torch.float32 and found.shape == (2, 24, 6)
    np.testing.assert_allclose(found.double(), expected, rtol=1e-6, atol=1e-5)


def test_densities_of_every_pair_have_the_gradients_of_those_of_one():
    loc, log_scale, z = torch.randn(4, 3, dtype=F64), torch.randn(4, 3, dtype=F64), torch.randn(2, 5, 3, dtype=F64)
    weights = torch.randn(2, 5, 4, dtype=F64)
    found = []
    for each in (
        log_prob_by_each,
        lambda p, value: Independent(Normal(p.loc, p.scale), 1).log_prob(value[..., None, :]),
    ):
        leaves = [value.clone().requires_grad_() for value in (loc, log_scale, z)]
        (each(DiagonalNormal(*leaves[:2]), leaves[2]) * weights).sum().backward()
        found.append([leaf.grad for leaf in leaves])
    for own, expected in zip(*found):
        torch.testing.assert_close(own, expected)


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
    with pytest.raises(ConfigError):
        VampPrior(2, (1, 2, 2), start="images")


def test_a_mixture_of_full_normals_is_what_a_full_posterior_makes_of_it():
    posterior = FullNormalPosterior(2)
    features = torch.randn(3, posterior.features)
    p = Mixture(posterior(features), torch.tensor([0.2, 0.3, 0.5]).log())
    z = torch.randn(6, 2)
    each = torch.stack([posterior(row).log_prob(z) for row in features], -1).exp()
    torch.testing.assert_close(p.log_prob(z).exp(), each @ torch.tensor([0.2, 0.3, 0.5]))
    assert p.rsample_and_log_prob(torch.randn(8, 3))[0].shape == (8, 2)


FROZEN = {
    "diagonal": (lambda f: DiagonalNormal(f[..., :2], f[..., 2:4]), 4),
    "full": (FullNormalPosterior(2), 5),
    **{kind: (FlowPosterior(2, kind, 2, (8,), context=3), 7) for kind in ("maf", "nsf", "coupling")},
}


@pytest.mark.parametrize("kind", ["maf", "nsf"])
def test_a_frozen_flow_of_one_dimension_has_no_gradient_of_its_own_either(kind):
    posterior = FlowPosterior(1, kind, 2, (8,), context=3)
    features, z = torch.randn(4, posterior.features, requires_grad=True), torch.randn(4, 1, requires_grad=True)
    total = posterior(features).frozen().log_prob(z).sum()
    found, *own = torch.autograd.grad(total, [z, features, *posterior.parameters()], allow_unused=True)
    assert found.abs().sum() > 0 and all(gradient is None for gradient in own)
    assert torch.autograd.grad(posterior(features).log_prob(z).sum(), features)[0].abs().sum() > 0


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


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_distribution_has_the_same_density_and_gradient_of_z_and_none_of_its_own(name):
    make, size = FROZEN[name]
    features = (0.3 * torch.randn(4, size)).requires_grad_()
    z = torch.randn(4, 2, requires_grad=True)
    q = make(features)
    plain, frozen = q.log_prob(z), q.frozen().log_prob(z)
    torch.testing.assert_close(plain, frozen)
    (expected,) = torch.autograd.grad(plain.sum(), z, retain_graph=True)
    parameters = [features, *getattr(make, "parameters", list)()]
    found, *own = torch.autograd.grad(frozen.sum(), [z, *parameters], allow_unused=True)
    torch.testing.assert_close(expected, found)
    assert all(gradient is None for gradient in own)
    assert all(p.requires_grad for p in parameters), "what was frozen for a moment trains again"
    assert torch.autograd.grad(q.log_prob(z).sum(), features)[0].abs().sum() > 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: FlowPrior(2, "iaf"),
        lambda: FlowPrior(1, "coupling"),
        lambda: FlowPrior(10**6, hidden=[10**6]),
        lambda: NormalLikelihood((1, 2, 2), "perpixel"),
        lambda: LaplaceLikelihood((1, 2, 2), "residual"),
    ],
)
def test_settings_that_make_no_distribution_are_refused(make):
    with pytest.raises(ConfigError):
        make()


# Likelihoods


def test_laplace_is_scipys_even_far_away():
    likelihood, x = LaplaceLikelihood((1, 2, 2), 0.02), torch.rand(5, 1, 2, 2)
    loc = torch.randn(5, 1, 2, 2)
    expected = scipy.stats.laplace(loc.double().numpy(), 0.02).logpdf(x.double().numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood(loc).log_prob(x), expected, rtol=1e-5)
    assert float(likelihood(loc + 1e6).log_prob(x).max()) == pytest.approx(-4e6 / 0.02, rel=1e-3)


@pytest.mark.parametrize("cls", [NormalLikelihood, LaplaceLikelihood])
def test_a_scale_per_pixel_is_the_decoders_second_half(cls):
    likelihood = cls((2, 3, 3), "per_pixel")
    assert likelihood.output_shape == (4, 3, 3)
    output, x = torch.randn(5, 4, 3, 3), torch.rand(5, 2, 3, 3)
    torch_class = {NormalLikelihood: torch.distributions.Normal, LaplaceLikelihood: torch.distributions.Laplace}[cls]
    expected = torch_class(output[:, :2], output[:, 2:].exp()).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(likelihood(output).log_prob(x), expected)


def test_a_residual_scale_becomes_the_trainings_root_mean_square_and_stays_in_evaluation():
    likelihood = NormalLikelihood((1, 8, 8), "residual")
    likelihood.start_at(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.3))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.3)
    for _ in range(600):
        mean = torch.rand(64, 1, 8, 8)
        likelihood(mean).log_prob(mean + 0.07 * torch.randn_like(mean))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.07, rel=0.02)
    likelihood(torch.full((2, 1, 8, 8), math.inf)).log_prob(torch.zeros(2, 1, 8, 8))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.07, rel=0.02), "one bad batch changes nothing"
    likelihood.eval()
    before = likelihood.log_scale.clone()
    x, mean = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    found = likelihood(mean).log_prob(x)
    assert torch.equal(likelihood.log_scale, before) and "log_scale" in likelihood.state_dict()
    expected = scipy.stats.norm(mean.numpy(), float(before.exp())).logpdf(x.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(found, expected, rtol=1e-4)


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


@pytest.mark.parametrize("cls", [DiscretizedLogisticMixtureLikelihood, CategoricalLikelihood])
def test_channels_are_the_decoders_in_the_right_order_and_start_at_the_mean(cls):
    likelihood = cls((3, 2, 2))
    mean, std = torch.rand(3, 2, 2) * 0.6 + 0.2, torch.full((3, 2, 2), 0.1)
    output = likelihood.start_at(mean, std)
    assert output.shape == likelihood.output_shape
    torch.testing.assert_close(likelihood(output.unsqueeze(0)).mean[0], mean, rtol=0, atol=0.02)


@pytest.mark.parametrize("cls", [DiscretizedLogisticMixtureLikelihood, CategoricalLikelihood, LaplaceLikelihood])
def test_log_probabilities_are_finite_in_float32_for_wild_outputs(cls):
    likelihood = cls((1, 2, 2))
    for size in (1.0, 30.0, 1e4):
        output = (size * torch.randn(9, *likelihood.output_shape)).requires_grad_()
        x = torch.randint(0, 256, (9, 1, 2, 2)) / 255
        total = likelihood(output).log_prob(x)
        total.sum().backward()
        assert total.isfinite().all() and output.grad.isfinite().all()
