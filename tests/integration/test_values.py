"""Data that are no images, from a file to a score: truths in closed form, and what a run leaves."""

import json
import math

import numpy as np
import pytest
import scipy.stats
import torch
from sklearn.datasets import load_breast_cancer, load_wine
from sklearn.decomposition import PCA, FactorAnalysis

from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import Arrays
from vae_cli.evaluation.bounds import score
from vae_cli.training.initialization import measure
from vae_cli.training.run import run as train

LINEAR = ["encoder=linear", "decoder=linear", "posterior=full_normal", "likelihood=normal", "latent_dim=2"]


def split_of(tmp_path, name):
    x = {"wine": load_wine, "cancer": load_breast_cancer}[name]().data
    order = np.random.default_rng(0).permutation(len(x))
    x = x[order[:, None], np.arange(min(13, x.shape[1]))]
    count = len(x) * 4 // 5
    np.savez(tmp_path / "x.npz", train=x[:count], test=x[count:])
    return x[:count], x[count:]


def linear_gaussian(data, fitted, per_position):
    """The model whose p(x|z) and exact p(z|x) are those of a fitted factor analysis of standardized columns."""
    config = compose.compose(
        "train",
        ["dataset=arrays", "dataset.path=x", *LINEAR, *(["likelihood.scale=per_position"] if per_position else [])],
    )
    model = parts.model(config, data.facts)
    measure(model, data.train, data.facts.standardize)
    loadings, noise = fitted.components_.T, np.broadcast_to(fitted.noise_variance_, fitted.mean_.shape)
    if isinstance(fitted, PCA):
        loadings = loadings * np.sqrt(fitted.explained_variance_ - fitted.noise_variance_)
    covariance = np.linalg.inv(np.eye(2) + loadings.T @ (loadings / noise[:, None]))
    gain, lower = covariance @ (loadings / noise[:, None]).T, np.linalg.cholesky(covariance)
    q = model.posterior(torch.zeros(1, model.posterior.features))
    assert q.mean.shape == (1, 2)
    with torch.no_grad():
        model.decoder.output.weight.copy_(torch.tensor(loadings))
        model.decoder.output.bias.copy_(torch.tensor(fitted.mean_))
        model.likelihood.raw_scale.copy_(torch.tensor(np.log(noise if per_position else noise[:1].mean()) / 2))
        model.encoder.output.weight.zero_()
        model.encoder.output.weight[:2].copy_(torch.tensor(gain))
        model.encoder.output.bias[:2].copy_(torch.tensor(-gain @ fitted.mean_))
        model.encoder.output.bias[2:].copy_(torch.tensor([math.log(lower[0, 0]), math.log(lower[1, 1]), lower[1, 0]]))
    return model.eval()


@pytest.mark.parametrize("name", ["wine", "cancer"])
@pytest.mark.parametrize("per_position", [False, True])
def test_one_scale_is_probabilistic_pca_and_a_scale_per_column_factor_analysis_in_the_columns_units(
    name, per_position, tmp_path
):
    train_rows, test_rows = split_of(tmp_path, name)
    data = Arrays(str(tmp_path / "x.npz"), validation=0).splits()
    center, scale = train_rows.mean(0), train_rows.std(0)
    fitted = (FactorAnalysis(2) if per_position else PCA(2)).fit((train_rows - center) / scale)
    model = linear_gaussian(data, fitted, per_position)
    for split, rows in ((data.train, train_rows), (data.test, test_rows)):
        expected = fitted.score((rows - center) / scale) - np.log(scale).sum()
        found = score(model, split, [50], 0).log_likelihood[0]
        assert float(found.mean()) == pytest.approx(expected, abs=2e-3)


def test_with_missing_values_the_log_likelihood_is_the_closed_form_of_what_is_observed(tmp_path):
    train_rows, test_rows = split_of(tmp_path, "wine")
    gaps = np.random.default_rng(1).random(test_rows.shape) < 0.3
    np.savez(tmp_path / "gaps.npz", train=train_rows, test=np.where(gaps, np.nan, test_rows))
    data = Arrays(str(tmp_path / "gaps.npz"), validation=0).splits()
    center, scale = train_rows.mean(0), train_rows.std(0)
    fitted = PCA(2).fit((train_rows - center) / scale)
    model = linear_gaussian(data, fitted, per_position=False)
    with torch.no_grad():  # the exact posterior of what is whole is far from that of what is not: z is drawn from p(z)
        model.encoder.output.weight.zero_()
        model.encoder.output.bias.zero_()
    found = score(model, data.test, [20_000], 0).log_likelihood[0].numpy()
    covariance = np.outer(scale, scale) * fitted.get_covariance()
    exact = [
        scipy.stats.multivariate_normal(center[here], covariance[np.ix_(here, here)]).logpdf(row[here])
        for row, here in zip(test_rows, ~gaps)
    ]
    np.testing.assert_allclose(found, exact, atol=0.25)
    assert abs(np.mean(found - exact)) < 0.02


@pytest.mark.parametrize(
    ("values", "settings", "likelihood", "support"),
    [
        ("real", [], "NormalLikelihood", "real"),
        (
            "gaps",
            ["model=ladder", "model.latents=[3,2]", "model.widths=[16,8]", "prior=vampprior", "prior.components=5"],
            "NormalLikelihood",
            "real",
        ),
        ("counts", ["likelihood=zero_inflated_negative_binomial", "likelihood.offset=total"], "ZeroInflated", "counts"),
        ("bits", [], "BernoulliLikelihood", "binary"),
        *(
            pytest.param(*each, marks=pytest.mark.slow)
            for each in (
                ("counts", ["prior=vampprior", "prior.components=5"], "NegativeBinomialLikelihood", "counts"),
                ("sequences", ["dataset.support=real", "dataset.standardize=robust"], "NormalLikelihood", "real"),
            )
        ),
        ("sequences", ["dataset.support=real", "encoder=conv1d", "decoder=conv1d"], "NormalLikelihood", "real"),
    ],
)
def test_a_run_over_values_ends_with_charts_and_no_warning(values, settings, likelihood, support, tmp_path):
    random = np.random.default_rng(0)
    mean = random.normal(size=(200, 2)) @ random.normal(size=(2, 6))
    made = {
        "real": 5 + mean,
        "gaps": np.where(random.random(mean.shape) < 0.3, np.nan, mean),
        "counts": random.poisson(np.exp(mean.clip(-3, 3))),
        "bits": mean > 0,
        "sequences": mean.reshape(200, 2, 3),
    }[values]
    np.savez(tmp_path / "x.npz", train=made[~np.isnan(made.astype(float)).reshape(200, -1).all(1)])
    line = ["dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}", "epochs=2", "batch_size=32", "device=cpu"]
    line += [] if "model=ladder" in settings else ["latent_dim=2"]
    line += [] if {"model=ladder", "encoder=conv1d"} & set(settings) else ["encoder.hidden=[16]", "decoder.hidden=[16]"]
    config = compose.compose("train", [*line, *settings])
    assert train(config, tmp_path / "run") == 0
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["data"]["support"] == support
    assert not [text for text in summary["warnings"] if not any(word in text for word in ("too few steps", "KL under"))]
    assert likelihood in (tmp_path / "run" / "config.yaml").read_text()
    names = {path.stem for path in (tmp_path / "run").glob("*.png")}
    assert {"samples", "reconstructions", "latents", "curves"} <= names
    assert ("correlations" in names) == (values != "sequences") and not {"traversals", "levels"} & names
