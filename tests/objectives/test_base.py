"""Properties of every objective."""

import math

import pytest
import torch

from tests.support.annotations import takes
from tests.support.linear_gaussian import SHAPE, D, linear_gaussian, made_exact
from tests.support.objectives import F64, encoder_gradient, images, noise
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    MixtureOfNormalsPrior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.errors import ConfigError
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import DIPVAE, ELBO, IWAE, BetaTC, FactorVAE, IncompatibleError, InfoVAE


@pytest.mark.parametrize("objective", [ELBO(estimator="stl", mc_samples=5), IWAE("dreg", mc_samples=5)])
def test_with_the_exact_posterior_the_encoder_gradient_is_zero(objective):
    x = images()
    model = made_exact(linear_gaussian(FullNormalPosterior), x)
    gradient = encoder_gradient(objective, model, x, noise(5))
    plain = encoder_gradient(ELBO(kl="monte_carlo", mc_samples=5), model, x, noise(5))
    assert gradient.abs().max() < 1e-8 < 1e-2 < plain.abs().max()


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


@pytest.mark.parametrize(
    "objective", [ELBO(), ELBO(estimator="stl"), IWAE(mc_samples=2), BetaTC(size=50), InfoVAE(), DIPVAE()]
)
def test_a_model_needs_no_more_than_evidence_of_images_noise_and_labels(objective):
    class Other(VAE):
        def evidence(self, x, noise, y):
            return super().evidence(x, noise, y)

    model, x = linear_gaussian(DiagonalNormalPosterior), images()
    drawn = torch.randn(objective.mc_samples, len(x), objective.noise_dim(model), dtype=F64)
    expected = objective(model, (x, None), drawn, 0).loss
    model.__class__ = Other
    assert objective(model, (x, None), drawn, 0).loss == expected


@pytest.mark.parametrize(
    "make",
    [
        lambda: ELBO(estimator="stl", kl="analytic"),
        lambda: ELBO(free_bits=1.0, capacity=2.0),
        lambda: IWAE(groups=2, mc_samples=3),
        lambda: IWAE("dreg", elbo_weight=0.5),
    ],
)
def test_choices_that_exclude_each_other_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    ("cls", "key", "value"),
    [
        (ELBO, "kl", "exact"),
        (ELBO, "estimator", "dreg"),
        (ELBO, "beta_schedule", "up"),
        (ELBO, "beta", -1.0),
        (ELBO, "capacity", -0.1),
        (IWAE, "estimator", "stl"),
        (IWAE, "groups", 0),
        (IWAE, "elbo_weight", 2.0),
        (BetaTC, "estimator", "mws"),
        (InfoVAE, "weight", math.inf),
        (DIPVAE, "kind", "iii"),
        (DIPVAE, "diagonal", -1.0),
        (FactorVAE, "gamma", -1.0),
        (FactorVAE, "hidden", [0]),
        (FactorVAE, "lr", 0.0),
    ],
)
def test_annotations_refuse_what_does_not_exist(cls, key, value):
    assert not takes(cls, key, value)


def test_combinations_without_meaning_are_refused_by_both_groups():
    def model(posterior, prior):
        encoder = MLPEncoder(SHAPE, posterior.features, hidden=[])
        return VAE(encoder, MLPDecoder(D, SHAPE, hidden=[]), posterior, prior, NormalLikelihood(SHAPE, 1.0))

    with pytest.raises(IncompatibleError, match="this prior's dimensions depend on each other") as refusal:
        BetaTC().check(model(DiagonalNormalPosterior(D), MixtureOfNormalsPrior(D)))
    assert refusal.value.groups == ("objective", "prior")
    with pytest.raises(IncompatibleError, match="the posterior of each dimension alone") as refusal:
        BetaTC().check(model(FlowPosterior(D), StandardNormalPrior(D)))
    assert refusal.value.groups == ("objective", "posterior")
    with pytest.raises(IncompatibleError, match="the posterior's mean and covariance") as refusal:
        DIPVAE().check(model(FlowPosterior(D), StandardNormalPrior(D)))
    assert refusal.value.groups == ("objective", "posterior")
    with pytest.raises(IncompatibleError, match="no closed form") as refusal:
        ELBO(kl="analytic").check(model(FlowPosterior(D), StandardNormalPrior(D)))
    assert refusal.value.groups == ("objective.kl", "posterior", "prior")


def factor_vae():
    objective = FactorVAE(hidden=[8], mc_samples=2, latent_dim=D)
    objective.module.double()
    return objective


OBJECTIVES = {
    "elbo": lambda: ELBO(beta=0.7, mc_samples=2),
    "elbo monte carlo": lambda: ELBO(kl="monte_carlo", mc_samples=2),
    "free bits": lambda: ELBO(free_bits=0.2, mc_samples=2),
    "capacity": lambda: ELBO(capacity=1.0, mc_samples=2),
    "iwae": lambda: IWAE(mc_samples=2),
    "ciwae": lambda: IWAE(elbo_weight=0.4, mc_samples=2),
    "beta_tc": lambda: BetaTC(size=30, mc_samples=2),
    "info_vae": lambda: InfoVAE(weight=5.0, mc_samples=2),
    "factor_vae": factor_vae,
    "dip_vae i": lambda: DIPVAE("i", mc_samples=2),
    "dip_vae ii": lambda: DIPVAE("ii", mc_samples=2),
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
