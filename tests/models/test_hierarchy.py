"""Hierarchies against closed forms, quadrature and finite differences."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal, kl_divergence

from tests.support.hierarchies import CONDITIONAL, MODELS, X, shaken, small_hierarchy
from tests.support.linear_hierarchy import D1, D2, SHAPE, exact, linear_hierarchy, made_exact
from vae_cli.distributions import (
    BernoulliLikelihood,
    DiagonalNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.errors import ConfigError
from vae_cli.models import VAE, Ladder
from vae_cli.models.hierarchy import need_hierarchy
from vae_cli.objectives import ELBO, IWAE
from vae_cli.objectives.base import IncompatibleError
from vae_cli.objectives.elbo import _balance

D = D1 + D2


def linear_images(count=5):
    return torch.rand(count, *SHAPE, dtype=torch.float64)


def symmetric_noise(batch):
    """2D draws ±√D e_d, whose mean is 0 and covariance I exactly."""
    nodes = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()
    return nodes[:, None].expand(-1, batch, -1)


def joint_posterior(model, x):
    """q(z1, z2|x) of a linear model: z is linear in the noise, so that its mean and covariance are read off."""
    posterior, zeros = model.encode(x), torch.zeros(1, len(x), D, dtype=torch.float64)
    mean = posterior.rsample_and_log_prob(zeros)[0][0]
    basis = torch.eye(D, dtype=torch.float64)[:, None].expand(-1, len(x), -1)
    factor = (posterior.rsample_and_log_prob(basis)[0] - mean).permute(1, 2, 0)
    return MultivariateNormal(mean, factor @ factor.mT)


def test_the_exact_model_has_the_posterior_of_one_joint_normal_distribution():
    model, x = made_exact(linear_hierarchy()), linear_images()
    _, true = exact(model, x)
    own = joint_posterior(model, x)
    torch.testing.assert_close(own.mean, true.mean, rtol=0, atol=1e-9)
    torch.testing.assert_close(own.covariance_matrix, true.covariance_matrix.expand(5, D, D), rtol=0, atol=1e-9)


@pytest.mark.parametrize("kl", ["analytic", "monte_carlo"])
@pytest.mark.parametrize("is_relative", [False, True])
def test_elbo_plus_kl_to_the_true_posterior_is_log_p_x_to_1e9(is_relative, kl):
    model, x = linear_hierarchy(is_relative), linear_images()
    log_p_x, true = exact(model, x)
    noise = symmetric_noise(len(x))  # exact means of a quadratic integrand
    bound = ELBO(kl=kl, mc_samples=len(noise))(model, (x, None), noise, 0)
    gap = kl_divergence(joint_posterior(model, x), true)
    assert gap.min() > 0.1
    torch.testing.assert_close(bound.elbo + gap, log_p_x, rtol=0, atol=1e-9)


def test_the_log_densities_of_the_evidence_obey_bayes_rule():
    model, x = linear_hierarchy(), linear_images()
    log_p_x, true = exact(model, x)
    evidence = model.evidence(x, torch.randn(7, len(x), D, dtype=torch.float64))
    joint = evidence.log_p_x_given_z + evidence.log_p_z - true.log_prob(evidence.z)
    torch.testing.assert_close(joint, log_p_x.expand(7, -1), rtol=0, atol=1e-9)
    torch.testing.assert_close(
        evidence.log_q_z_given_x, joint_posterior(model, x).log_prob(evidence.z), rtol=0, atol=1e-9
    )


def test_with_the_exact_posterior_every_weight_and_every_bound_is_log_p_x():
    model, x = made_exact(linear_hierarchy()), linear_images()
    log_p_x, _ = exact(model, x)
    for k in (1, 4):
        noise = torch.randn(k, len(x), D, dtype=torch.float64)
        evidence = model.evidence(x, noise)
        log_w = evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x
        torch.testing.assert_close(log_w, log_p_x.expand(k, -1), rtol=0, atol=1e-9)
        torch.testing.assert_close(IWAE(mc_samples=k)(model, (x, None), noise, 0).bound, log_p_x, rtol=0, atol=1e-9)


def posterior_gradient(model, objective, x, noise):
    model.zero_grad()
    objective(model, (x, None), noise, 0).loss.backward()
    return torch.cat([p.grad.flatten() for block in model.blocks for p in block.posterior.parameters()])


@pytest.mark.parametrize("objective", [ELBO(estimator="stl", mc_samples=3), IWAE(estimator="dreg", mc_samples=3)])
def test_with_the_exact_posterior_its_gradient_without_the_score_is_zero(objective):
    model, x = made_exact(linear_hierarchy()), linear_images()
    noise = torch.randn(3, len(x), D, dtype=torch.float64)
    assert posterior_gradient(model, objective, x, noise).abs().max() < 1e-9
    assert posterior_gradient(model, IWAE(mc_samples=3), x, noise).abs().max() > 1e-2  # the score alone is noise


def all_gradients(model, objective, x, noise):
    model.zero_grad()
    objective(model, (x, None), noise, 0).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (ELBO(estimator="stl", mc_samples=2), ELBO(kl="monte_carlo", mc_samples=2)),
        (ELBO(kl="analytic", mc_samples=2), ELBO(kl="monte_carlo", mc_samples=2)),
        (IWAE(estimator="dreg", mc_samples=2), IWAE(mc_samples=2)),
    ],
)
@pytest.mark.parametrize("is_relative", [False, True])
def test_the_estimators_have_the_same_mean_gradient(one, other, is_relative):
    torch.manual_seed(0)
    model = Ladder([2, 1], [5, 4], (6,), StandardNormalPrior, NormalLikelihood((6,), scale=0.5), relative=is_relative)
    model, x = shaken(model).double(), torch.rand(1, 6, dtype=torch.float64).expand(300, -1)
    samples = [
        torch.stack([all_gradients(model, objective, x, torch.randn(2, 300, 3).double()) for _ in range(15)])
        for objective in (one, other)
    ]
    error = sum(each.var(0) / len(each) for each in samples).sqrt()
    difference = (samples[0].mean(0) - samples[1].mean(0)).abs()
    assert (difference < 5 * error + 1e-9).all()
    assert (samples[0].mean(0).abs() > 5 * error).float().mean() > 0.2  # that they are zero would be no test


def test_two_levels_agree_with_quadrature():
    torch.manual_seed(0)
    likelihood = BernoulliLikelihood((6,))
    model = shaken(Ladder([1, 1], [6, 5], (6,), StandardNormalPrior, likelihood)).double()
    with torch.no_grad():
        for block in model.blocks:
            block.posterior.output.bias[1:] = 0  # as wide as the prior, so that importance weights have a variance
    x = torch.tensor([[1.0, 0, 1, 1, 0, 0], [0, 1, 0, 0, 1, 1]]).double()
    places = torch.linspace(-9, 9, 601, dtype=torch.float64)
    cell = (places[1] - places[0]) ** 2
    z = torch.cartesian_prod(places, places)  # [z1, z2]
    with torch.no_grad():
        log_joint = model.decode(z[:, None]).log_prob(x) + model.latent_prior().log_prob(z)[:, None]
        log_p_x = log_joint.logsumexp(0) + cell.log()
        log_q = model.encode(x).log_prob(z[:, None].expand(-1, 2, -1))
        q = log_q.exp() * cell
        torch.testing.assert_close(q.sum(0), torch.ones(2).double(), rtol=0, atol=1e-6)
        total = (model.latent_prior().log_prob(z).exp() * cell).sum()
        torch.testing.assert_close(total, torch.tensor(1.0).double(), rtol=0, atol=1e-6)
        exact_elbo = (q * (log_joint - log_q)).sum(0)
        noise = torch.randn(4000, 2, 2, dtype=torch.float64)
        evidence = model.evidence(x, noise)
        log_w = evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x
        weights = (log_w - log_p_x).exp()
        assert ((weights.mean(0) - 1).abs() < 4 * weights.std(0) / math.sqrt(len(noise))).all()
        bound = IWAE(mc_samples=len(noise))(model, (x, None), noise, 0).bound
        torch.testing.assert_close(bound, log_p_x + weights.mean(0).log(), rtol=0, atol=1e-9)
        error = log_w.std(0) / math.sqrt(len(noise))
        assert ((log_w.mean(0) - exact_elbo).abs() < 4 * error).all()
        assert error.max() < 0.05 and (log_p_x - exact_elbo).min() > 0.005


@pytest.fixture(params=MODELS)
def model(request):
    return small_hierarchy(request.param)


def binary_images(model, count=3):
    return (torch.rand(count, *model.shape) > 0.5).double()


def test_the_model_s_distributions_agree_with_its_evidence(model):
    x = binary_images(model)
    evidence = model.evidence(x, torch.randn(4, 3, model.noise_dim, dtype=torch.float64))
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(evidence.posterior.log_prob(evidence.z), evidence.log_q_z_given_x, **close)
    torch.testing.assert_close(evidence.prior.log_prob(evidence.z), evidence.log_p_z, **close)
    torch.testing.assert_close(model.decode(evidence.z).log_prob(x), evidence.log_p_x_given_z, **close)
    by_level = evidence.posterior.log_prob_by_level(evidence.z)
    torch.testing.assert_close(by_level, torch.stack([level.log_q for level in evidence.levels]), **close)
    assert torch.equal(torch.cat([level.z for level in evidence.levels], -1), evidence.z)
    assert [level.name for level in evidence.levels] == list(model.level_sizes)


def test_each_level_s_analytic_kl_is_the_mean_of_its_log_ratios_given_the_levels_above(model):
    x, level_noise = binary_images(model, 1), torch.randn(1, 1, model.noise_dim, dtype=torch.float64)
    number = len(model.level_sizes) - 2  # the level below the top
    drawn = level_noise.repeat(4000, 1, 1)
    parts = list(model.split(drawn))
    parts[number] = torch.randn_like(parts[number])
    with torch.no_grad():
        level = model.evidence(x, torch.cat(parts, dim=-1)).levels[number]
    ratio = level.log_q - level.log_p
    error = ratio.std(0) / math.sqrt(len(ratio))
    assert ((ratio.mean(0) - level.analytic_kl()).abs() < 5 * error).all()
    torch.testing.assert_close(level.kl_by_dimension().sum(-1), level.analytic_kl())


@pytest.mark.parametrize("prior", ["mixture", "vampprior"])
@pytest.mark.parametrize("name", ["ladder", "top_down"])
def test_gradients_agree_with_finite_differences(name, prior):
    """Along random directions of all parameters together, each of length 1."""
    model = small_hierarchy(name, prior)
    x, noise = binary_images(model, 2), torch.randn(2, 2, model.noise_dim, dtype=torch.float64)
    parameters = list(model.parameters())
    start = nn.utils.parameters_to_vector(parameters).detach()

    def loss(at):
        nn.utils.vector_to_parameters(at, parameters)
        return ELBO(beta=0.7, free_bits=0.2, free_bits_by="level")(model, (x, None), noise, 5).loss

    loss(start).backward()
    gradient = torch.cat([parameter.grad.flatten() for parameter in parameters])
    for direction in nn.functional.normalize(torch.randn(8, len(start), dtype=torch.float64)):
        with torch.no_grad():
            difference = (loss(start + 1e-5 * direction) - loss(start - 1e-5 * direction)) / 2e-5
        assert abs(difference - gradient @ direction) < 1e-7 * gradient.norm()


def test_one_level_is_the_vae_of_the_same_networks_bit_for_bit():
    torch.manual_seed(0)
    ladder = shaken(Ladder([3], [6], X, StandardNormalPrior, BernoulliLikelihood(X)))

    class Encoder(nn.Module):
        def forward(self, x):
            return ladder.blocks[0].posterior(ladder.start, *ladder.encoder(x))

    class Decoder(nn.Module):
        def forward(self, z):
            return ladder.decoder(ladder.blocks[0](ladder.start, z))

    vae = VAE(Encoder(), Decoder(), DiagonalNormalPosterior(3), StandardNormalPrior(3), BernoulliLikelihood(X))
    x, noise = (torch.rand(4, *X) > 0.5).float(), torch.randn(2, 4, 3)
    for objective in (ELBO(mc_samples=2), ELBO(estimator="stl", mc_samples=2), IWAE(mc_samples=2)):
        one, other = (objective(each, (x, None), noise, 0) for each in (ladder, vae))
        assert torch.equal(one.elbo, other.elbo) and torch.equal(one.bound, other.bound)
        assert torch.equal(one.loss, other.loss) and one.terms.keys() == other.terms.keys()


def test_completing_z_keeps_the_upper_levels_and_draws_the_others_from_the_prior(model):
    count, noise = len(model.level_sizes), torch.randn(3, model.latent_dim, dtype=torch.float64)
    z = model.sample_latents(torch.randn(3, model.prior_noise_dim, dtype=torch.float64))
    for kept in range(count + 1):
        done = model.complete(z, kept, noise)
        for number, (before, after) in enumerate(zip(model.split(z), model.split(done))):
            assert torch.equal(before, after) == (number >= count - kept)
    torch.testing.assert_close(model.complete(z, 0, noise), model.sample_latents(noise))
    torch.testing.assert_close(model.complete(z, 0), model.latent_prior().mean.expand(3, -1))


def test_a_temperature_of_each_level_scales_its_spread_alone(model):
    noise = torch.randn(3, model.prior_noise_dim, dtype=torch.float64)
    mean = model.latent_prior().mean
    torch.testing.assert_close(model.sample_latents(noise, 0.0), mean.expand(3, -1))
    hot, cold = [1.0] * len(model.level_sizes), [1.0] * len(model.level_sizes)
    cold[0] = 0.0
    for number, (one, other) in enumerate(
        zip(model.split(model.sample_latents(noise, hot)), model.split(model.sample_latents(noise, cold)))
    ):
        assert torch.equal(one, other) == (number > 0)


def test_labels_reach_posterior_prior_and_decoder():
    torch.manual_seed(0)
    for make in CONDITIONAL.values():
        model, x = shaken(make()), (torch.rand(3, *X) > 0.5).float()
        one, other = torch.tensor([0, 1, 2]), torch.tensor([1, 1, 2])
        noise = torch.randn(4, 3, model.noise_dim)
        a, b = (model.evidence(x, noise, y) for y in (one, other))
        assert not torch.allclose(a.z[:, 0], b.z[:, 0]) and torch.equal(a.z[:, 1:], b.z[:, 1:])
        c = model.decode(a.z[0], other).log_prob(x)
        assert not torch.allclose(c[0], a.log_p_x_given_z[0, 0])
        torch.testing.assert_close(model.encode(x, one).log_prob(a.z), a.log_q_z_given_x)
        torch.testing.assert_close(model.latent_prior(one).log_prob(a.z), a.log_p_z)
        p = model.latent_prior(other).log_prob(a.z)
        assert not torch.isclose(p[:, 0], a.log_p_z[:, 0]).any()
        torch.testing.assert_close(p[:, 1:], a.log_p_z[:, 1:])


@pytest.mark.parametrize("name", CONDITIONAL)
def test_a_conditional_hierarchy_refuses_to_go_without_labels(name):
    """With as many rows as classes each row would have a label of its own, unseen."""
    model = CONDITIONAL[name]()
    x, z = torch.zeros(3, *X), torch.zeros(3, model.latent_dim)
    for run in (
        lambda: model.features(x),
        lambda: model.encode(x),
        lambda: model.encode_top(x),
        lambda: model.decode(z),
        lambda: model.complete(z, 1),
        lambda: model.sample_latents(z),
    ):
        with pytest.raises(AssertionError, match="a conditional model needs labels"):
            run()


def test_a_model_of_one_latent_vector_is_no_hierarchy_for_a_setting_that_needs_one():
    ladder = Ladder([3], [6], X, StandardNormalPrior, BernoulliLikelihood(X))
    assert need_hierarchy(ladder, "mode=levels") is ladder
    linear = nn.Linear(1, 1)
    vae = VAE(linear, linear, DiagonalNormalPosterior(3), StandardNormalPrior(3), BernoulliLikelihood(X))
    with pytest.raises(ConfigError, match="^mode=levels: this model has one level .* mode is of a hierarchy; leave it"):
        need_hierarchy(vae, "mode=levels")


def test_bfloat16_multiplies_in_bfloat16_and_keeps_densities_in_float32():
    for name in ("ladder", "top_down"):
        torch.manual_seed(0)
        model = shaken(MODELS[name](StandardNormalPrior))
        x, noise = (torch.rand(3, *X) > 0.5).float(), torch.randn(2, 3, model.noise_dim)
        full = model.evidence(x, noise)
        model.precision = torch.bfloat16
        half = model.evidence(x, noise)
        for values in (half.log_p_x_given_z, half.log_q_z_given_x, half.log_p_z, half.z):
            assert values.dtype == torch.float32
        torch.testing.assert_close(half.log_p_x_given_z, full.log_p_x_given_z, rtol=0.05, atol=0.3)
        assert not torch.equal(half.log_p_x_given_z, full.log_p_x_given_z)


def test_a_balanced_warm_up_weighs_no_level_by_a_negative_kl_and_no_gradient_follows_the_weights():
    kl = torch.tensor([[-3.0, -1.0], [4.0, 2.0], [0.5, 0.5]], requires_grad=True)
    parts = _balance(kl.unbind(), share=0.5)
    wanted = torch.tensor([0.0, 3.0, 0.5]) + 0.01
    torch.testing.assert_close(parts, wanted / wanted.mean())
    assert not parts.requires_grad
    torch.testing.assert_close(_balance(torch.full((3, 2), -5.0).unbind(), share=torch.tensor(0.5)), torch.ones(3))
    for done in (1.0, torch.tensor(1.0)):
        assert torch.equal(_balance(kl.unbind(), share=done), torch.ones(3))


def test_the_capacity_of_a_hierarchy_is_of_the_sum_of_its_levels_over_all_draws():
    torch.manual_seed(0)
    model = shaken(MODELS["ladder"](StandardNormalPrior)).double()
    x, noise = binary_images(model), torch.randn(2, 3, model.noise_dim, dtype=torch.float64)
    bound = ELBO(capacity=50, beta=7)(model, (x, None), noise, 0)
    kl = sum(level.analytic_kl().mean() for level in model.evidence(x, noise).levels)
    torch.testing.assert_close(bound.loss, 7 * (50 - kl) - bound.terms["reconstruction"].mean())


def test_what_a_hierarchy_has_no_definition_for_is_refused():
    ladder = MODELS["ladder"](StandardNormalPrior)
    with pytest.raises(ConfigError, match="balanced is for a warm-up: give objective.warmup_epochs"):
        ELBO(beta_schedule="balanced")
    with pytest.raises(IncompatibleError, match="free_bits_by=level or sum"):
        ELBO(estimator="stl", free_bits=0.1).check(ladder)
    ELBO(estimator="stl", free_bits=0.1, free_bits_by="level").check(ladder)
    linear = nn.Linear(1, 1)
    vae = VAE(linear, linear, DiagonalNormalPosterior(3), StandardNormalPrior(3), BernoulliLikelihood(X))
    with pytest.raises(IncompatibleError, match="one level, and nothing to balance"):
        ELBO(beta_schedule="balanced", warmup_epochs=1).check(vae)


def test_levels_have_weights_a_warm_up_and_free_bits_of_their_own():
    torch.manual_seed(0)
    model = shaken(MODELS["ladder"](StandardNormalPrior)).double()
    x, noise = binary_images(model), torch.randn(2, 3, model.noise_dim, dtype=torch.float64)
    plain = ELBO()(model, (x, None), noise, 0)
    kl = [float(plain.terms[f"kl_z{number}"].detach().mean()) for number in (1, 2, 3)]
    reconstruction = float(plain.terms["reconstruction"].detach().mean())

    def loss(step=0, **settings):
        bound = ELBO(**settings)(model, (x, None), noise, step)
        torch.testing.assert_close(bound.elbo, plain.elbo)
        return float(bound.loss.detach()) + reconstruction

    assert loss(beta=[2, 0.5, 0]) == pytest.approx(2 * kl[0] + 0.5 * kl[1])
    balanced = {"beta_schedule": "balanced", "warmup_epochs": 1, "steps_per_epoch": 30}
    assert loss(0, **balanced) == pytest.approx(0)
    parts = [(each + 0.01) / (sum(kl) / 3 + 0.01) for each in kl]
    assert loss(15, beta=3, **balanced) == pytest.approx(1.5 * sum(p * each for p, each in zip(parts, kl)))
    assert loss(30, **balanced) == pytest.approx(sum(kl))
    middle = sorted(kl)[1]
    assert loss(free_bits=middle, free_bits_by="level") == pytest.approx(sum(max(middle, each) for each in kl))
    assert loss(free_bits=2 * sum(kl), free_bits_by="sum") == pytest.approx(2 * sum(kl))
    dimensions = [level.kl_by_dimension().mean(0) for level in model.evidence(x, noise).levels]
    expected = sum(float(each.detach().clamp(min=0.1).sum()) for each in dimensions)
    assert loss(free_bits=0.1) == pytest.approx(expected)
