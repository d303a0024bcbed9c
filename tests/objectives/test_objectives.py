"""Objectives against mathematics that does not share their code."""

import itertools
import math

import numpy as np
import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.support.linear_gaussian import SHAPE, D, exact, linear_gaussian, made_exact
from vae_cli.distributions import (
    DiagonalNormal,
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    MixtureOfNormalsPrior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.errors import ConfigError
from vae_cli.models.vae import VAE, Evidence
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO, IWAE, BetaTC, InfoVAE, Unfit, mmd
from vae_cli.schedules import WEIGHTS

F64 = torch.float64


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def images(count=4):
    return torch.rand(count, *SHAPE, dtype=F64)


def noise(k, count=4):
    return torch.randn(k, count, D, dtype=F64)


def encoder_gradient(objective, model, x, drawn):
    model.zero_grad()
    objective(model, (x, None), drawn, 0).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.encoder.parameters()])


def test_iwae_with_one_draw_is_the_elbo_in_value_and_gradient():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(1)
    elbo, iwae = ELBO(kl="monte_carlo"), IWAE()
    a, b = elbo(model, (x, None), drawn, 0), iwae(model, (x, None), drawn, 0)
    torch.testing.assert_close(a.elbo, b.bound, rtol=0, atol=1e-12)
    torch.testing.assert_close(a.elbo, b.elbo, rtol=0, atol=1e-12)
    first, second = (encoder_gradient(objective, model, x, drawn) for objective in (elbo, iwae))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("k", [1, 2, 7])
def test_with_the_exact_posterior_every_weight_is_p_of_x(k):
    x = images()
    model = made_exact(linear_gaussian(FullNormalPosterior), x)
    log_p_x, _ = exact(model, x)
    for _ in range(3):
        bound = IWAE(mc_samples=k)(model, (x, None), noise(k), 0)
        torch.testing.assert_close(bound.bound, log_p_x, rtol=0, atol=1e-9)


@pytest.mark.parametrize("objective", [ELBO(estimator="stl", mc_samples=5), IWAE("dreg", mc_samples=5)])
def test_with_the_exact_posterior_the_encoder_gradient_is_zero(objective):
    x = images()
    model = made_exact(linear_gaussian(FullNormalPosterior), x)
    found = encoder_gradient(objective, model, x, noise(5))
    plain = encoder_gradient(ELBO(kl="monte_carlo", mc_samples=5), model, x, noise(5))
    assert found.abs().max() < 1e-8 < 1e-2 < plain.abs().max()


def test_the_mean_bound_rises_with_the_number_of_draws_and_stays_below_log_p_x():
    model, x = linear_gaussian(DiagonalNormalPosterior), images(2)
    evidence = model.evidence(x, noise(64 * 2000, 2))
    log_w = (evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x).unflatten(0, (2000, 64))
    log_p_x, _ = exact(model, x)
    means, errors = [], []
    for k in (1, 4, 16, 64):
        bounds = log_w.unflatten(1, (64 // k, k)).logsumexp(2) - math.log(k)
        means.append(bounds.mean((0, 1)))
        errors.append(bounds.flatten(0, 1).std(0) / math.sqrt(bounds[..., 0].numel()))
    for low, high, error in zip(means, means[1:], errors):
        assert (high > low + 3 * error).all()
    assert (means[-1] < log_p_x + 4 * errors[-1]).all()


def test_the_bound_is_the_log_of_the_mean_weight_and_groups_average_bounds():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(6)
    e = model.evidence(x, drawn)
    w = (e.log_p_x_given_z + e.log_p_z - e.log_q_z_given_x).detach().numpy()
    expected = np.log(np.mean(np.exp(w - w.max(0)), 0)) + w.max(0)
    found = IWAE(mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(found.bound.detach(), expected, atol=1e-10)
    np.testing.assert_allclose(found.elbo.detach(), w.mean(0), atol=1e-10)
    grouped = IWAE(groups=6, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(grouped.bound.detach(), w.mean(0), atol=1e-10)
    three = np.stack([np.log(np.exp(part - part.max(0)).mean(0)) + part.max(0) for part in np.split(w, 3)])
    found = IWAE(groups=3, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(found.bound.detach(), three.mean(0), atol=1e-10)
    mixed = IWAE(elbo_weight=0.3, mc_samples=6)(model, (x, None), drawn, 0)
    np.testing.assert_allclose(-mixed.loss.detach(), (0.7 * expected + 0.3 * w.mean(0)).mean(), atol=1e-10)


@pytest.mark.parametrize(
    ("plain", "other", "k"), [("iwae", "dreg", 4), ("iwae groups", "dreg groups", 4), ("elbo", "stl", 1)]
)
def test_the_estimators_of_a_gradient_agree_in_the_mean_and_the_better_one_varies_less(plain, other, k):
    makers = {
        "iwae": IWAE(mc_samples=k),
        "dreg": IWAE("dreg", mc_samples=k),
        "iwae groups": IWAE(groups=2, mc_samples=4),
        "dreg groups": IWAE("dreg", groups=2, mc_samples=4),
        "elbo": ELBO(kl="monte_carlo"),
        "stl": ELBO(estimator="stl"),
    }
    x = images(1)
    model = made_exact(linear_gaussian(FullNormalPosterior), x)
    with torch.no_grad():  # near the truth, where the score is most of the noise
        for parameter in model.encoder.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))

    def gradients(name):
        return torch.stack([encoder_gradient(makers[name], model, x, noise(k, 1)) for _ in range(300)])

    a, b = gradients(plain), gradients(other)
    error = (a.var(0) / len(a) + b.var(0) / len(b)).sqrt()
    assert ((a.mean(0) - b.mean(0)).abs() < 5 * error + 1e-9).all()
    assert b.var(0).sum() < 0.7 * a.var(0).sum()


def test_dreg_gives_the_decoder_the_pathwise_gradient():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(5)
    found = []
    for objective in (IWAE(mc_samples=5), IWAE("dreg", mc_samples=5)):
        model.zero_grad()
        objective(model, (x, None), drawn, 0).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.decoder.parameters()]))
    torch.testing.assert_close(*found, rtol=0, atol=1e-9)


@pytest.mark.parametrize("factor", [0.0, 0.5, -3.0])
def test_dregs_gradient_is_linear_in_the_loss(factor):
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(4)
    found = []
    for scale in (1.0, factor):
        model.zero_grad()
        (scale * IWAE("dreg", groups=2, mc_samples=4)(model, (x, None), drawn, 0).loss).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
    torch.testing.assert_close(found[1], factor * found[0], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("objective", [ELBO(), ELBO(estimator="stl"), IWAE(mc_samples=2), BetaTC(size=50), InfoVAE()])
def test_a_model_needs_no_more_than_evidence_of_images_noise_and_labels(objective):
    class Other(VAE):
        def evidence(self, x, noise, y):
            return super().evidence(x, noise, y)

    model, x = linear_gaussian(DiagonalNormalPosterior), images()
    drawn = torch.randn(objective.mc_samples, len(x), objective.noise_dim(model), dtype=F64)
    expected = objective(model, (x, None), drawn, 0).loss
    model.__class__ = Other
    assert objective(model, (x, None), drawn, 0).loss == expected


def shaped(step=0, **options):
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(2)
    bound = ELBO(mc_samples=2, steps_per_epoch=10, **options)(model, (x, None), drawn, step)
    q = model.encode(x)
    by_dimension = 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).mean(0)
    return bound, by_dimension.detach(), float(bound.terms["reconstruction"].mean().detach())


def test_free_bits_let_each_dimension_have_so_many_nats_for_nothing():
    bound, by_dimension, reconstruction = shaped(free_bits=0.1)
    assert 0 < (by_dimension < 0.1).sum() < D, "the test needs dimensions on both sides"
    expected = by_dimension.clamp(min=0.1).sum() - reconstruction
    assert abs(float(bound.loss.detach()) - float(expected)) < 1e-9
    assert float(bound.elbo.detach().mean()) == pytest.approx(reconstruction - float(by_dimension.sum()), rel=1e-9)


def test_free_bits_hold_for_the_total_where_the_posterior_does_not_factorize():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(2)
    plain = ELBO(mc_samples=2)(model, (x, None), drawn, 0)
    kl = float(plain.terms["kl"].detach().mean())
    for bits in (kl / D - 0.1, kl / D + 0.1):
        bound = ELBO(mc_samples=2, free_bits=bits)(model, (x, None), drawn, 0)
        expected = max(kl, bits * D) - float(plain.terms["reconstruction"].detach().mean())
        assert float(bound.loss.detach()) == pytest.approx(expected)


def test_monte_carlo_free_bits_have_the_analytic_ones_expectation():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(20_000)
    a, b = (
        float(ELBO(kl=kl, free_bits=0.1)(model, (x, None), drawn, 0).loss.detach())
        for kl in ("analytic", "monte_carlo")
    )
    assert abs(a - b) < 0.05


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (10, 2.0), (20, 4.0), (99, 4.0)])
def test_capacity_draws_the_kl_to_its_value(step, target):
    bound, by_dimension, reconstruction = shaped(
        step, capacity=4.0, beta=3.0, beta_schedule="constant", warmup_epochs=2
    )
    expected = 3 * abs(float(by_dimension.sum()) - target) - reconstruction
    assert float(bound.loss.detach()) == pytest.approx(expected)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 1.0), (10, 2.0), (15, 2.0), (20, 0.0), (25, 1.0)])
def test_a_cyclical_weight_grows_in_the_first_half_of_every_cycle(step, weight):
    bound, by_dimension, reconstruction = shaped(step, beta=2.0, beta_schedule="cyclical", warmup_epochs=2)
    assert float(bound.loss) == pytest.approx(weight * float(by_dimension.sum()) - reconstruction)


@pytest.mark.parametrize("name", WEIGHTS)
def test_schedules_of_a_weight_are_the_same_of_a_tensor(name):
    for step in range(25):
        assert float(WEIGHTS[name](torch.tensor(float(step)), 7.5)) == pytest.approx(WEIGHTS[name](step, 7.5))


def test_schedules_of_a_weight_without_a_length_are_constant():
    assert [WEIGHTS[name](7, 0) for name in WEIGHTS] == [1.0] * 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: ELBO(estimator="dreg"),
        lambda: ELBO(beta_schedule="up"),
        lambda: ELBO(estimator="stl", kl="analytic"),
        lambda: ELBO(free_bits=1.0, capacity=2.0),
        lambda: IWAE(estimator="stl"),
        lambda: IWAE(groups=2, mc_samples=3),
        lambda: IWAE(elbo_weight=2.0),
        lambda: IWAE("dreg", elbo_weight=0.5),
        lambda: BetaTC(estimator="mws"),
    ],
)
def test_choices_that_do_not_exist_or_exclude_each_other_are_refused(make):
    with pytest.raises(ConfigError):
        make()


def aggregate(estimator, n=6, m=None, dim=2):
    """A set of n one-draw codes with their posteriors, and the estimator."""
    torch.manual_seed(3)
    loc, log_scale = torch.randn(n, dim, dtype=F64), 0.3 * torch.randn(n, dim, dtype=F64) - 0.5
    z = loc + log_scale.exp() * torch.randn(n, dim, dtype=F64)
    return loc, log_scale, z, BetaTC(estimator=estimator, size=n)


def evidence_of(loc, log_scale, z):
    q = DiagonalNormal(loc, log_scale)
    p = DiagonalNormal(torch.zeros(z.shape[-1], dtype=F64), torch.zeros(z.shape[-1], dtype=F64))
    z = z.unsqueeze(0)
    zero = torch.zeros(z.shape[:2], dtype=F64)
    return Evidence(z, zero, p.log_prob(z), q.log_prob(z), q, p, q)


@pytest.mark.parametrize("estimator", ["leave_one_in", "minibatch_weighted", "stratified"])
def test_the_three_terms_sum_to_the_kl(estimator):
    loc, log_scale, z, objective = aggregate(estimator)
    evidence = evidence_of(loc, log_scale, z)
    total = sum(objective.terms(evidence))
    torch.testing.assert_close(total, (evidence.log_q_z_given_x - evidence.log_p_z).mean(0), rtol=0, atol=1e-10)


def test_the_default_estimator_is_exact_when_the_batch_is_the_whole_set():
    loc, log_scale, z, objective = aggregate("leave_one_in")
    information, correlation, _ = objective.terms(evidence_of(loc, log_scale, z))
    normal = [[MultivariateNormal(loc[j], torch.diag((2 * log_scale[j]).exp())) for j in range(6)]][0]
    log_q_z = torch.stack([torch.stack([n.log_prob(zi) for n in normal]).exp().mean().log() for zi in z])
    own = torch.stack([n.log_prob(zi) for n, zi in zip(normal, z)])
    scalars = torch.distributions.Normal(loc.T, log_scale.exp().T)  # (D, N)
    marginal = torch.stack([scalars.log_prob(zi.unsqueeze(-1)) for zi in z])
    log_q_z_d = marginal.exp().mean(-1).log().sum(-1)
    torch.testing.assert_close(information, own - log_q_z, rtol=0, atol=1e-10)
    torch.testing.assert_close(correlation, log_q_z - log_q_z_d, rtol=0, atol=1e-10)


@pytest.mark.parametrize("estimator", ["leave_one_in", "stratified"])
@pytest.mark.parametrize("m", [2, 3, 4, 6])
def test_the_density_is_unbiased_over_all_batches_that_hold_the_image(estimator, m):
    loc, log_scale, z, objective = aggregate(estimator)
    q = DiagonalNormal(loc, log_scale)
    each = q.log_prob(z[0]).exp()
    estimates = []
    for others in itertools.permutations(range(1, 6), m - 1):
        weights = objective.log_weights(m).exp()[0]
        estimates.append((weights * each[[0, *others]]).sum())
    assert float(torch.stack(estimates).mean()) == pytest.approx(float(each.mean()), abs=1e-12)
    assert torch.allclose(objective.log_weights(m).exp().sum(1), torch.ones(m, dtype=F64))


def test_the_minibatch_weighted_density_is_the_published_one():
    loc, log_scale, z, objective = aggregate("minibatch_weighted")
    batch = evidence_of(loc[:4], log_scale[:4], z[:4])
    information, _, _ = objective.terms(batch)
    q = DiagonalNormal(loc[:4], log_scale[:4])
    for i in range(4):
        log_q_z = math.log(sum(math.exp(float(v)) for v in q.log_prob(z[i])) / (6 * 4))
        assert float(information[i]) == pytest.approx(float(batch.log_q_z_given_x[0, i]) - log_q_z)


@pytest.mark.parametrize("m", [2, 5, 9])
def test_the_stratified_weights_are_the_published_matrix(m):
    n, published = 20, torch.full((m, m), 1 / (m - 1), dtype=F64)
    strat = (n - (m - 1)) / (n * (m - 1))
    published.view(-1)[:: m + 1] = 1 / n
    published.view(-1)[1 :: m + 1] = strat
    published[m - 1, 0] = strat
    found = BetaTC(estimator="stratified", size=n).log_weights(m).exp()
    torch.testing.assert_close(found, published)


def test_beta_tc_with_weights_of_one_is_the_elbo_and_weights_weigh():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(2)
    plain = ELBO(kl="monte_carlo")(model, (x, None), drawn, 0)
    one = BetaTC(beta=1.0, size=50, mc_samples=2)(model, (x, None), drawn, 0)
    assert float(one.loss) == pytest.approx(float(plain.loss))
    many = BetaTC(2.0, 3.0, 4.0, size=50, mc_samples=2)(model, (x, None), drawn, 0)
    parts = [float(many.terms[name].mean()) for name in ("mutual_information", "total_correlation", "dimension_kl")]
    weighed = 2 * parts[0] + 3 * parts[1] + 4 * parts[2] - float(many.terms["reconstruction"].mean())
    assert float(many.loss) == pytest.approx(weighed)


def test_mmd_is_the_double_sum_of_its_kernel():
    a, b = torch.randn(7, 2, dtype=F64), torch.randn(5, 2, dtype=F64) + 1

    def kernel(x, y):
        return sum(4 * s / (4 * s + float(((x - y) ** 2).sum())) for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))

    same_a = np.mean([kernel(a[i], a[j]) for i in range(7) for j in range(7) if i != j])
    same_b = np.mean([kernel(b[i], b[j]) for i in range(5) for j in range(5) if i != j])
    cross = np.mean([kernel(x, y) for x in a for y in b])
    assert float(mmd(a, b)) == pytest.approx(same_a + same_b - 2 * cross)


def test_mmd_is_zero_in_the_mean_for_one_distribution_and_positive_for_two():
    same = torch.stack([mmd(torch.randn(50, 2), torch.randn(50, 2)) for _ in range(200)])
    assert abs(same.mean()) < 4 * same.std() / math.sqrt(200)
    assert float(mmd(torch.randn(500, 2), torch.randn(500, 2) + 1)) > 0.1
    assert float(mmd(torch.randn(1, 2), torch.randn(1, 2))) == 0


def test_info_vae_weighs_the_kl_and_the_gap():
    model, x = linear_gaussian(DiagonalNormalPosterior), images()
    drawn = torch.randn(2, 4, 2 * D, dtype=F64)
    bound = InfoVAE(alpha=0.3, weight=10.0, mc_samples=2)(model, (x, None), drawn, 0)
    kl, gap, reconstruction = (float(bound.terms[name].mean()) for name in ("kl", "mmd", "reconstruction"))
    assert float(bound.loss) == pytest.approx(0.7 * kl + 9.3 * gap - reconstruction)
    z = model.evidence(x, drawn[..., :D]).z
    assert gap == pytest.approx(sum(float(mmd(z[k], drawn[k, :, D:])) for k in range(2)) / 2)


def test_the_gap_of_several_draws_is_unbiased_where_posteriors_are_narrow():
    """The aggregate of q(z|x) = N(√(1 − v) u, v I) over u ~ N(0, I) is the prior: the gap is 0 in the mean."""
    v, k, shape = 0.1, 10, (1, 1, D)
    posterior = DiagonalNormalPosterior(D)
    encoder, decoder = MLPEncoder(shape, 2 * D, hidden=[]), MLPDecoder(D, shape, hidden=[])
    model = VAE(encoder, decoder, posterior, StandardNormalPrior(D), NormalLikelihood(shape, 1.0)).double()
    with torch.no_grad():
        encoder.output.weight.copy_(torch.cat([(1 - v) ** 0.5 * torch.eye(D), torch.zeros(D, D)]))
        encoder.output.bias.copy_(torch.cat([torch.zeros(D), torch.full((D,), 0.5 * math.log(v))]))
        found = []
        for _ in range(120):
            x, drawn = torch.randn(20, *shape, dtype=F64), torch.randn(k, 20, 2 * D, dtype=F64)
            found.append(float(InfoVAE(mc_samples=k)(model, (x, None), drawn, 0).terms["mmd"]))
    found = torch.tensor(found)
    assert abs(found.mean()) < 4 * found.std() / math.sqrt(len(found))


def test_a_batch_of_one_image_tells_nothing_of_the_aggregate_posterior():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(1), noise(3, 1)
    bound = BetaTC(size=50, mc_samples=3)(model, (x, None), drawn, 0)
    assert float(bound.terms["mutual_information"]) == float(bound.terms["total_correlation"]) == 0
    torch.testing.assert_close(bound.terms["dimension_kl"], bound.terms["kl"])


def test_dregs_loss_is_minus_the_bound_whatever_its_gradient_is_of():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(5)
    bound = IWAE("dreg", mc_samples=5)(model, (x, None), drawn, 0)
    assert float(bound.loss.detach()) == pytest.approx(-float(bound.bound.detach().mean()))


def test_combinations_without_meaning_are_refused_by_both_groups():
    def model(posterior, prior):
        encoder = MLPEncoder(SHAPE, posterior.features, hidden=[])
        return VAE(encoder, MLPDecoder(D, SHAPE, hidden=[]), posterior, prior, NormalLikelihood(SHAPE, 1.0))

    with pytest.raises(Unfit, match="this prior's dimensions depend on each other") as refusal:
        BetaTC().check(model(DiagonalNormalPosterior(D), MixtureOfNormalsPrior(D)))
    assert refusal.value.groups == ("objective", "prior")
    with pytest.raises(Unfit, match="the posterior of each dimension alone") as refusal:
        BetaTC().check(model(FlowPosterior(D), StandardNormalPrior(D)))
    assert refusal.value.groups == ("objective", "posterior")
    with pytest.raises(Unfit, match="no closed form") as refusal:
        ELBO(kl="analytic").check(model(FlowPosterior(D), StandardNormalPrior(D)))
    assert refusal.value.groups == ("objective.kl", "posterior", "prior")


OBJECTIVES = {
    "elbo": lambda: ELBO(beta=0.7, mc_samples=2),
    "elbo monte carlo": lambda: ELBO(kl="monte_carlo", mc_samples=2),
    "free bits": lambda: ELBO(free_bits=0.2, mc_samples=2),
    "capacity": lambda: ELBO(capacity=1.0, mc_samples=2),
    "iwae": lambda: IWAE(mc_samples=2),
    "ciwae": lambda: IWAE(elbo_weight=0.4, mc_samples=2),
    "beta_tc": lambda: BetaTC(size=30, mc_samples=2),
    "info_vae": lambda: InfoVAE(weight=5.0, mc_samples=2),
}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_are_finite_differences(name):
    model, x, objective = linear_gaussian(DiagonalNormalPosterior), images(), OBJECTIVES[name]()
    drawn = torch.randn(2, 4, objective.noise_dim(model), dtype=F64)
    model.zero_grad()
    objective(model, (x, None), drawn, 3).loss.backward()
    h = 1e-6
    for parameter in model.parameters():
        for index in (0, parameter.numel() // 2):
            with torch.no_grad():
                flat = parameter.view(-1)
                values = []
                for shift in (h, -2 * h):
                    flat[index] += shift
                    values.append(float(objective(model, (x, None), drawn, 3).loss))
                flat[index] += h
            difference = (values[0] - values[1]) / (2 * h)
            assert float(parameter.grad.view(-1)[index]) == pytest.approx(difference, rel=1e-5, abs=1e-6)
