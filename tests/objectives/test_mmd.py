"""InfoVAE and the maximum mean discrepancy."""

import math

import numpy as np
import pytest
import torch

from tests.support.linear_gaussian import D, linear_gaussian
from tests.support.objectives import F64, images
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import InfoVAE, mmd


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
        estimates = []
        for _ in range(120):
            x, drawn = torch.randn(20, *shape, dtype=F64), torch.randn(k, 20, 2 * D, dtype=F64)
            estimates.append(float(InfoVAE(mc_samples=k)(model, (x, None), drawn, 0).terms["mmd"]))
    estimates = torch.tensor(estimates)
    assert abs(estimates.mean()) < 4 * estimates.std() / math.sqrt(len(estimates))
