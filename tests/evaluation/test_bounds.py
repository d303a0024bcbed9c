"""Bounds over a split, and the importance-weighted estimate of log p(x)."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from tests.support.linear_gaussian import SHAPE, D, exact, linear_gaussian, made_exact
from vae_cli import noise
from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import DataFacts, Split
from vae_cli.distributed import collectives
from vae_cli.distributed.ranks import Rank
from vae_cli.distributions import (
    BernoulliLikelihood,
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    MixtureOfNormalsPrior,
    StandardNormalPrior,
    VampPrior,
)
from vae_cli.evaluation.bounds import evaluate, score
from vae_cli.models import VAE, Ladder
from vae_cli.networks import LabeledDecoder, LabeledEncoder, MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO

SMALL = ["latent_dim=3", "encoder.hidden=[16]", "decoder.hidden=[16]", "mc_samples=2"]


def log_likelihood(*arguments, **more):
    return score(*arguments, **more).log_likelihood


def split(count=5, labels=None):
    torch.manual_seed(4)
    return Split(torch.rand(count, *SHAPE, dtype=torch.float64), labels, 1.0)


def single(model):
    """The images come as float32: so do the weights."""
    return model.float().eval()


def test_with_the_exact_posterior_every_number_of_draws_gives_log_p_x():
    data = split()
    model = made_exact(linear_gaussian(FullNormalPosterior), data.images)
    log_p_x, _ = exact(model, data.images.double())
    estimates = log_likelihood(single(model), data, [1, 3, 120], seed=0)
    np.testing.assert_allclose(estimates, log_p_x.expand(3, -1), atol=1e-3)


def test_it_rises_to_log_p_x_with_the_number_of_draws():
    data = split(300)
    model = linear_gaussian(DiagonalNormalPosterior)
    log_p_x, _ = exact(model, data.images.double())
    one, ten, hundred, many = log_likelihood(single(model), data, [1, 10, 100, 5000], seed=0)
    assert one.mean() < ten.mean() < hundred.mean() < many.mean()
    assert abs(float((many - log_p_x).mean())) < 0.05


def test_it_is_what_numpy_makes_of_the_weights_of_a_network_that_is_not_linear():
    """Bernoulli pixels, 130 draws: more than are drawn together; every density by scipy."""
    torch.manual_seed(0)
    posterior = DiagonalNormalPosterior(D)
    encoder, decoder = MLPEncoder(SHAPE, 2 * D, [7], "tanh"), MLPDecoder(D, SHAPE, [7], "tanh")
    model = VAE(encoder, decoder, posterior, StandardNormalPrior(D), BernoulliLikelihood(SHAPE)).eval()
    data = Split((torch.rand(4, *SHAPE) < 0.5).byte(), None, 1.0)
    (estimate,) = log_likelihood(model, data, [130], seed=9)

    def layer(network, value):
        w1, b1, w2, b2 = (p.detach().double().numpy() for p in network.parameters())
        return np.tanh(value @ w1.T + b1) @ w2.T + b2

    x = data.images.flatten(1).double().numpy()
    loc, log_scale = np.split(layer(encoder, x), 2, axis=1)
    chunks = [noise.by_image(4, 50, D, 9, "log_likelihood", seen) for seen in (0, 50, 100)]
    epsilon = torch.cat(chunks)[:130].double().numpy()
    z = loc + np.exp(log_scale) * epsilon
    p = 1 / (1 + np.exp(-layer(decoder, z)))
    log_w = scipy.stats.bernoulli(p).logpmf(x).sum(-1)
    log_w += scipy.stats.norm.logpdf(z).sum(-1) - scipy.stats.norm(loc, np.exp(log_scale)).logpdf(z).sum(-1)
    np.testing.assert_allclose(estimate, scipy.special.logsumexp(log_w, axis=0) - math.log(130), atol=1e-4)


@pytest.mark.parametrize("together", [1, 13, 700, 1 << 22])
def test_neither_chunks_nor_other_images_nor_further_draws_change_a_value(together):
    data, model = split(260), single(linear_gaussian(DiagonalNormalPosterior))
    expected = log_likelihood(model, data, [1, 60], seed=3)
    few = log_likelihood(model, data, [60, 1, 70], seed=3, count=20 if together < 100 else 260, together=together * 12)
    np.testing.assert_allclose(few[[1, 0]], expected[:, : few.shape[1]], atol=1e-5)
    assert not np.allclose(log_likelihood(model, data, [1], seed=4), expected[:1])


def test_a_conditional_model_is_given_each_images_own_label():
    torch.manual_seed(0)
    posterior, prior = FlowPosterior(D, hidden=[8]), VampPrior(D, SHAPE, 3, classes=2)
    encoder = LabeledEncoder(MLPEncoder((2, 3, 4), posterior.features), SHAPE, 2)
    decoder = LabeledDecoder(MLPDecoder(D + 2, SHAPE), 2)
    model = VAE(encoder, decoder, posterior, prior, BernoulliLikelihood(SHAPE), classes=2).eval()
    images = (torch.rand(3, *SHAPE) < 0.5).byte()
    both = log_likelihood(model, Split(images, torch.tensor([0, 1, 1]), 1.0), [10], seed=0)
    ones = log_likelihood(model, Split(images, torch.tensor([1, 1, 1]), 1.0), [10], seed=0)
    np.testing.assert_allclose(both[:, 1:], ones[:, 1:], atol=1e-4)
    assert abs(float(both[0, 0] - ones[0, 0])) > 1e-3


def test_the_evaluation_of_many_draws_is_the_mean_over_images_whatever_the_chunks():
    """Against one pass over the whole split, with 300 images (more than a block) and 60 draws (chunks of 4)."""
    binary, shape, posterior = (
        Split((torch.rand(300, *SHAPE) < 0.5).byte(), None, 1.0),
        SHAPE,
        DiagonalNormalPosterior(3),
    )
    encoder, decoder = MLPEncoder(shape, posterior.features), MLPDecoder(3, shape)
    model = VAE(encoder, decoder, posterior, StandardNormalPrior(3), BernoulliLikelihood(shape))
    objective, drawn = ELBO(mc_samples=60), noise.by_image(300, 60, 3, 5, "evaluation")
    with torch.no_grad():
        expected = objective(model, (binary.images.float(), None), drawn, 0).elbo.mean()
    assert abs(evaluate(model, objective, binary, seed=5)["elbo"] - expected) < 1e-4


@pytest.mark.parametrize(("images", "count"), [(600, 2), (601, 3), (251, 4), (2, 3)])
def test_an_evaluation_in_parts_counts_every_image_once(images, count, monkeypatch):
    """The sums of the parts, put together by hand, against the whole."""
    split = Split((torch.rand(images, 1, 4, 4) < 0.5).to(torch.uint8), None, 1.0)
    settings = compose.compose("train", [*SMALL, "likelihood=bernoulli"])
    facts = DataFacts("synthetic", (1, 4, 4), "binary", 0, 9)
    model = parts.model(settings, facts)
    objective = parts.objective(settings, model, facts, 1)
    whole = evaluate(model, objective, split, seed=5)
    sums, counted = [], []

    def note(values):
        (counted if values.ndim == 0 else sums).append(values.clone())
        return values

    monkeypatch.setattr(collectives, "all_reduce", note)
    for rank in range(count):
        evaluate(model, objective, split, 5, rank=Rank(rank, count))
    assert sum(counted) == images
    means = sum(sums) / images
    assert means.tolist() == pytest.approx([whole[key] for key in ("elbo", "bound", "reconstruction", "kl", "loss")])


def test_a_level_without_a_closed_form_has_the_mean_of_its_draws():
    """With a mixture at the top; the memory changes no value."""
    torch.manual_seed(0)
    model = Ladder([2, 2], [8, 6], (1, 4, 4), lambda dim: MixtureOfNormalsPrior(dim, 3), BernoulliLikelihood((1, 4, 4)))
    split = Split((torch.rand(7, 1, 4, 4) > 0.5).float(), None, 1.0)
    one, other = (score(model, split, [20], 0, together=together) for together in (1 << 22, 20))
    drawn = noise.by_image(7, 50, 4, 0, "log_likelihood", 0)[:20]
    with torch.no_grad():
        top = model.evidence(split.images, drawn).levels[1]
    torch.testing.assert_close(one.kl_by_level[1], (top.log_q - top.log_p).mean(0).double(), atol=1e-5, rtol=1e-4)
    for field in ("kl_by_level", "log_likelihood", "elbo"):
        torch.testing.assert_close(getattr(one, field), getattr(other, field), atol=1e-4, rtol=1e-4)
