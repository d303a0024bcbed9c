"""The covariance of the latent code and its distance from the identity."""

import numpy as np
import pytest
import torch

from tests.support.linear_gaussian import linear_gaussian
from tests.support.objectives import F64, images, noise
from vae_cli.distributions import DiagonalNormal, DiagonalNormalPosterior, FullNormal
from vae_cli.objectives import DIPVAE, ELBO


def expected(covariance):
    off = covariance - np.diag(np.diag(covariance))
    return (off**2).sum(), ((np.diag(covariance) - 1) ** 2).sum()


def test_the_covariance_of_the_means_is_numpys():
    means = torch.randn(30, 4, dtype=F64) @ torch.randn(4, 4, dtype=F64)
    got = DIPVAE("i").distances(DiagonalNormal(means, torch.zeros_like(means)))
    assert [float(value) for value in got] == pytest.approx(expected(np.cov(means.numpy(), rowvar=False)))


@pytest.mark.parametrize("is_full", [False, True])
def test_the_covariance_of_the_aggregate_posterior_is_that_of_many_draws(is_full):
    """One of the image first, then of z given the image; the means' part has n − 1 in its denominator."""
    count, draws = 12, 40_000
    means, scale = torch.randn(count, 3, dtype=F64), 0.3 * torch.randn(count, 3, 3, dtype=F64)
    scale = scale.tril(-1) * is_full + torch.diag_embed(scale.diagonal(dim1=1, dim2=2).exp())
    q = FullNormal(means, scale) if is_full else DiagonalNormal(means, scale.diagonal(dim1=1, dim2=2).log())
    z = q.rsample_and_log_prob(torch.randn(draws, count, 3, dtype=F64))[0].numpy()
    of_draws = np.mean([np.cov(z[:, n], rowvar=False) for n in range(count)], axis=0)
    covariance = np.cov(means.numpy(), rowvar=False) + of_draws
    got = [float(value) for value in DIPVAE("ii").distances(q)]
    assert got == pytest.approx(expected(covariance), rel=0.03)
    assert got != pytest.approx([float(value) for value in DIPVAE("i").distances(q)], rel=0.1)


def test_the_loss_weighs_the_two_distances_and_without_weights_it_is_the_elbos():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(2)
    plain = ELBO(mc_samples=2)(model, (x, None), drawn, 0)
    none = DIPVAE("ii", 0.0, 0.0, mc_samples=2)(model, (x, None), drawn, 0)
    assert float(none.loss.detach()) == pytest.approx(float(plain.loss.detach()))
    parameters = list(model.parameters())
    torch.testing.assert_close(*(torch.autograd.grad(b.loss, parameters) for b in (plain, none)))
    some = DIPVAE("ii", 2.0, 3.0, mc_samples=2)(model, (x, None), drawn, 0)
    off, diagonal = (float(some.terms[f"covariance_{name}"].detach()) for name in ("off_diagonal", "diagonal"))
    assert off > 0 and diagonal > 0
    assert float(some.loss.detach()) == pytest.approx(float(plain.loss.detach()) + 2 * off + 3 * diagonal)
    assert torch.equal(some.elbo, plain.elbo)


def test_the_diagonals_weight_is_the_papers_multiple_unless_it_is_given():
    assert [DIPVAE(kind, 5.0).diagonal for kind in ("i", "ii")] == [50.0, 5.0]
    assert [DIPVAE(kind, 5.0, 2.0).diagonal for kind in ("i", "ii")] == [2.0, 2.0]


@pytest.mark.parametrize("kind", ["i", "ii"])
def test_a_single_image_has_no_covariance(kind):
    mean = torch.randn(1, 3, dtype=F64)
    assert [float(v) for v in DIPVAE(kind).distances(DiagonalNormal(mean, mean))] == [0.0, 0.0]
