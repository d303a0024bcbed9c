"""Where the latent vectors of generated images come from."""

import numpy as np
import pytest
import torch

from tests.support.generation import close, drawn, many, model_of, toy
from vae_cli.build import parts, trained
from vae_cli.data import Images, Split
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    StandardNormalPrior,
)
from vae_cli.errors import DataError
from vae_cli.evaluation import latent_codes
from vae_cli.generation.samplers import CHUNK, AggregateSampler, MixtureSampler, Sampler


def test_aggregate_draws_have_the_moments_of_the_mixture_of_posteriors():
    model, split = toy()
    q = model.encode(split.images)
    mean = q.mean.double().mean(0)
    covariance = torch.cov(q.mean.double().T, correction=0) + torch.diag(q.variance.double().mean(0))
    z = many(AggregateSampler(model, 0, split))
    error = (covariance.diagonal() / len(z)).sqrt()
    assert ((z.mean(0) - mean).abs() < 4 * error).all()
    largest = float(covariance.diagonal().max().detach())
    torch.testing.assert_close(torch.cov(z.T), covariance, rtol=0.06, atol=0.06 * largest)


def test_mixture_draws_follow_the_density_that_scikit_learn_fits():
    from sklearn.mixture import GaussianMixture

    model, split = toy()
    sampler = MixtureSampler(model, 0, split, components=3)
    z = many(sampler)
    codes = latent_codes.encode(model, split, 0).draws(model, 0).double().numpy()
    torch.testing.assert_close(z.mean(0), torch.from_numpy(codes.mean(0)), atol=0.05, rtol=0)
    np.testing.assert_allclose(np.cov(z.numpy().T), np.cov(codes.T, bias=True), atol=0.06 * codes.var(0).max())
    fitted = sampler.mixtures[0]
    weights, loc = fitted.log_weights.exp().double().numpy(), fitted.components.loc.double().numpy()
    start = {"weights_init": weights / weights.sum(), "means_init": loc}
    again = GaussianMixture(3, random_state=0, **start).fit(codes)
    assert again.score(codes) == pytest.approx(float(fitted.log_prob(torch.from_numpy(codes).float()).mean()), abs=0.02)


@pytest.mark.parametrize("sampler", ["gmm", "aggregate"])
def test_samplers_are_functions_of_the_seed_and_the_images_number(sampler, run, tmp_path):
    first = drawn(run, tmp_path, f"sampler={sampler}", "n=70")["images"]
    np.testing.assert_array_equal(first[:5], drawn(run, tmp_path, f"sampler={sampler}", "n=5")["images"])
    assert not np.array_equal(first[:5], drawn(run, tmp_path, f"sampler={sampler}", "n=5", "seed=1")["images"])
    assert not np.array_equal(first[:5], drawn(run, tmp_path, "n=5")["images"])


@pytest.mark.parametrize("sampler", ["gmm", "aggregate"])
def test_of_a_conditional_model_codes_come_from_images_of_the_label(sampler, labeled, tmp_path):
    used = trained.load(labeled / "checkpoints" / "best.safetensors", "cpu")
    train_set = parts.dataset(used.settings).splits().train
    codes = latent_codes.encode(used.model, train_set, 0)
    of_three = codes.means[codes.labels == 3].double()
    make = {"gmm": lambda: MixtureSampler(used.model, 0, train_set, 2)}
    make["aggregate"] = lambda: AggregateSampler(used.model, 0, train_set)
    z = torch.cat([make[sampler]().chunk(CHUNK * n, torch.full((CHUNK,), 3)) for n in range(30)]).double()
    spread = (z.var(0) / len(of_three) + z.var(0) / len(z)).sqrt()
    assert ((z.mean(0) - of_three.mean(0)).abs() < 4 * spread).all()
    samples = drawn(labeled, tmp_path, f"sampler={sampler}", "label=3", "n=4")
    assert samples["labels"].tolist() == [3] * 4


def test_a_label_without_training_images_is_refused(labeled):
    used = trained.load(labeled / "checkpoints" / "best.safetensors", "cpu")
    values = np.zeros((40, 1, 8, 8), np.float32)
    few = Split.of(Images(values, np.arange(40) % 2), 1.0)
    for sampler in (AggregateSampler(used.model, 0, few), MixtureSampler(used.model, 0, few, 2)):
        with pytest.raises(DataError, match="no training image has the label 7"):
            sampler.chunk(0, torch.full((CHUNK,), 7))


def test_the_priors_sampler_is_the_models_own_sample():
    model = model_of(DiagonalNormalPosterior(2), StandardNormalPrior(2))
    z = Sampler(model, 3, temperature=0.5).chunk(64)
    half = Sampler(model, 3).chunk(64) / 2
    close(z, half)


def test_a_mixture_is_fitted_to_codes_that_lie_in_a_plane(monkeypatch):
    model, split = toy()
    flat = torch.randn(300, 4) @ torch.randn(4, 16) * 100
    monkeypatch.setattr("vae_cli.generation.samplers.draws", lambda *_: flat)
    assert MixtureSampler(model, 0, split, 3).chunk(0).isfinite().all()
