"""Trainings on data that are no images, against maxima and densities that are known."""

import json

import numpy as np
import pytest
import scipy.special
import scipy.stats
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.decomposition import PCA, FactorAnalysis

from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.training.run import run as train

pytestmark = pytest.mark.slow


def log_likelihood(run, split, draws):
    evaluate.run(
        compose.compose(
            "evaluate",
            [f"checkpoint={run}", f"split={split}", f"num_importance_samples={draws}", f"output={run / split}.json"],
        )
    )
    return json.loads((run / f"{split}.json").read_text())["log_likelihood"]["value"]


@pytest.mark.parametrize("load", [load_wine, load_breast_cancer, load_diabetes, load_digits])
@pytest.mark.parametrize("per_position", [False, True])
def test_training_arrives_at_probabilistic_pca_and_factor_analysis(load, per_position, tmp_path):
    x = load().data
    if load is load_breast_cancer:
        x = x[:, 1::3]  # of radius beside perimeter and area factor analysis has no maximum: a noise goes to zero
    if load is load_digits:
        x = x[:, 16:48]  # the middle
        x = x[:, x.std(0) > 0.3]
    x = x[np.random.default_rng(0).permutation(len(x))]
    count = len(x) * 4 // 5
    np.savez(tmp_path / "x.npz", train=x[:count], test=x[count:])
    line = [
        "dataset=arrays",
        f"dataset.path={tmp_path / 'x.npz'}",
        "dataset.validation=0",
        "encoder=linear",
        "latent_dim=2",
    ]
    line += ["decoder=linear", "posterior=full_normal", "likelihood=normal", f"batch_size={count}", "mc_samples=8"]
    line += ["epochs=8000", "optimizer.lr=1e-2", "scheduler=cosine", "sample_every=0", "report=false", "log_every=1000"]
    line += ["checkpoint_every=8000", "device=cpu", *(["likelihood.scale=per_position"] if per_position else [])]
    assert train(compose.compose("train", line), tmp_path / "run") == 0
    center, scale = x[:count].mean(0), x[:count].std(0)
    fitted = FactorAnalysis(2, tol=1e-8, max_iter=10_000) if per_position else PCA(2)
    fitted.fit((x[:count] - center) / scale)
    # scikit-learn's PCA divides its variances by n − 1; the maximum of the likelihood has n.
    maximum = fitted.get_covariance() * (1 if per_position else (count - 1) / count)
    for split, rows in (("train", x[:count]), ("test", x[count:])):
        u = (rows - center) / scale
        expected = scipy.stats.multivariate_normal(cov=maximum).logpdf(u).mean() - np.log(scale).sum()
        if split == "train":
            assert expected == pytest.approx(fitted.score(u) - np.log(scale).sum(), abs=0.01)
        assert log_likelihood(tmp_path / "run", split, 500) == pytest.approx(expected, abs=0.02), split


@pytest.mark.parametrize("zeros", [0.0, 0.3])
def test_counts_of_a_known_decoder_are_modelled_to_a_hundredth_of_their_log_likelihood(zeros, tmp_path):
    random, dims, shape = np.random.default_rng(0), 20, 2.0
    weights, bias = random.normal(size=(2, dims)), random.normal(1, 0.7, dims)

    def log_p(x, z):
        p = shape / (shape + np.exp(z @ weights + bias))
        each = scipy.stats.nbinom(shape, p).logpmf(x) + np.log1p(-zeros)
        return np.where(x == 0, np.logaddexp(each, np.log(zeros)) if zeros else each, each).sum(-1)

    z = random.normal(size=(6000, 2))
    mean = np.exp(z @ weights + bias)
    x = random.poisson(random.gamma(shape, mean / shape)) * (random.random(mean.shape) >= zeros)
    places = np.linspace(-5, 5, 81)
    grid = np.stack(np.meshgrid(places, places), -1).reshape(-1, 2)
    prior = scipy.stats.norm.logpdf(grid).sum(1) + 2 * np.log(places[1] - places[0])
    exact = np.mean([scipy.special.logsumexp(log_p(row, grid) + prior) for row in x[5000:]])
    np.savez(tmp_path / "x.npz", train=x[:5000], test=x[5000:])
    kind = "zero_inflated_negative_binomial" if zeros else "negative_binomial"
    line = [
        "dataset=arrays",
        f"dataset.path={tmp_path / 'x.npz'}",
        f"likelihood={kind}",
        "latent_dim=2",
        "decoder=linear",
    ]
    line += ["epochs=60", "batch_size=64", "optimizer.lr=2e-3", "scheduler=cosine", "report=false", "sample_every=0"]
    assert train(compose.compose("train", [*line, "device=cpu"]), tmp_path / "run") == 0
    found = log_likelihood(tmp_path / "run", "test", 500)
    assert abs(found - exact) < 0.01 * abs(exact)
    assert found < exact + 0.2
