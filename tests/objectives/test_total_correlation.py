"""The parts of the KL and the estimators of the aggregate posterior."""

import itertools
import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from tests.support.linear_gaussian import linear_gaussian
from tests.support.objectives import F64, images, noise
from vae_cli.distributions import (
    DiagonalNormal,
    DiagonalNormalPosterior,
    FullNormalPosterior,
)
from vae_cli.models.vae import Evidence
from vae_cli.objectives import ELBO, BetaTC


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
    weights = BetaTC(estimator="stratified", size=n).log_weights(m).exp()
    torch.testing.assert_close(weights, published)


def test_beta_tc_with_weights_of_one_is_the_elbo_and_weights_weigh():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(2)
    plain = ELBO(kl="monte_carlo")(model, (x, None), drawn, 0)
    one = BetaTC(beta=1.0, size=50, mc_samples=2)(model, (x, None), drawn, 0)
    assert float(one.loss) == pytest.approx(float(plain.loss))
    many = BetaTC(2.0, 3.0, 4.0, size=50, mc_samples=2)(model, (x, None), drawn, 0)
    parts = [float(many.terms[name].mean()) for name in ("mutual_information", "total_correlation", "dimension_kl")]
    weighed = 2 * parts[0] + 3 * parts[1] + 4 * parts[2] - float(many.terms["reconstruction"].mean())
    assert float(many.loss) == pytest.approx(weighed)


def test_a_batch_of_one_image_tells_nothing_of_the_aggregate_posterior():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(1), noise(3, 1)
    bound = BetaTC(size=50, mc_samples=3)(model, (x, None), drawn, 0)
    assert float(bound.terms["mutual_information"]) == float(bound.terms["total_correlation"]) == 0
    torch.testing.assert_close(bound.terms["dimension_kl"], bound.terms["kl"])
