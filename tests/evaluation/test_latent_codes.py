"""Numbers of latent codes."""

import math

import pytest
import torch

from vae_cli.distributions import (
    DiagonalNormal,
    DiagonalNormalPosterior,
    FlowPrior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.latent_codes import Codes
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder


def flat_model(prior):
    torch.manual_seed(0)
    shape = (1, 1, 2)
    posterior = DiagonalNormalPosterior(2)
    return VAE(MLPEncoder(shape, 4), MLPDecoder(2, shape), posterior, prior, NormalLikelihood(shape, 1.0)).eval()


def codes_of(loc, log_scale):
    parts = zip(loc.split(latent_codes.CHUNK), log_scale.split(latent_codes.CHUNK))
    return Codes([DiagonalNormal(*part) for part in parts], None)


def test_the_information_of_identical_posteriors_is_none_and_of_distant_ones_log_n():
    model = flat_model(StandardNormalPrior(2))
    same = codes_of(torch.zeros(300, 2), torch.zeros(300, 2))
    assert latent_codes.index_code_information(model, same, 0).abs().max() < 1e-5
    far = codes_of(1e3 * torch.arange(600.0).reshape(300, 2), torch.zeros(300, 2))
    torch.testing.assert_close(
        latent_codes.index_code_information(model, far, 0), torch.full((300,), math.log(300), dtype=torch.float64)
    )


def test_the_information_is_the_mutual_information_of_a_gaussian_channel():
    """I = ½ log(1 + s²/v) nats a dimension for codes of mean N(0, s²) and variance v, up to the finite set's bias."""
    torch.manual_seed(0)
    loc = torch.randn(3000, 2)
    information = latent_codes.index_code_information(
        flat_model(StandardNormalPrior(2)), codes_of(loc, torch.zeros(3000, 2)), 0
    )
    assert float(information.mean()) == pytest.approx(2 * 0.5 * math.log(2), abs=0.05)


def test_the_gap_is_nothing_where_the_aggregate_is_the_prior_and_grows_with_distance():
    torch.manual_seed(0)
    model, loc = flat_model(StandardNormalPrior(2)), 0.8 * torch.randn(5000, 2)
    scale = torch.full((5000, 2), math.log(0.6))
    value, error, images = latent_codes.aggregate_gap(model, codes_of(loc, scale), 0)
    assert abs(value) < 4 * error and images == 5000
    away, error, _ = latent_codes.aggregate_gap(model, codes_of(loc + 1, scale), 0)
    assert away > 0.1 and away > 20 * error


def test_the_gap_is_asked_of_the_prior_that_the_model_has():
    torch.manual_seed(0)
    model = flat_model(FlowPrior(2, hidden=(8,)))
    with torch.no_grad():
        drawn, _ = model.latent_prior().rsample_and_log_prob(torch.randn(3000, 2))
    value, error, _ = latent_codes.aggregate_gap(model, codes_of(drawn, torch.full((3000, 2), -6.0)), 0)
    assert abs(value) < 4 * error


def test_active_units_are_those_whose_mean_moves():
    means = torch.stack([torch.randn(500), 0.05 * torch.randn(500), torch.full((500,), 3.0)], 1)
    assert latent_codes.active_units(means) == 1


def test_the_means_of_codes_are_computed_once():
    """Those of a hierarchy take a run through its blocks."""
    runs = []

    class Posterior(DiagonalNormal):
        @property
        def mean(self):
            runs.append(self)
            return super().mean

    codes = Codes([Posterior(torch.zeros(2, 3), torch.zeros(2, 3)) for _ in range(2)], None)
    assert codes.means.shape == codes.points.means.shape == (4, 3) and len(runs) == 2
