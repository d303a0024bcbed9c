"""Likelihoods are normalized, and agree with torch and SciPy."""

import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from tests.support.annotations import takes
from tests.support.densities import FAR, close
from vae_cli.distributions import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    LaplaceLikelihood,
    NormalLikelihood,
)

SHAPE = (1, 2, 2)
LIKELIHOODS = [
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    NormalLikelihood,
    LaplaceLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    CategoricalLikelihood,
]


def bernoulli_total(logits):
    likelihood = BernoulliLikelihood(SHAPE)
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 1.0], dtype=torch.float64)] * 4).reshape(-1, *SHAPE)
    return likelihood(logits).log_prob(corners).exp().sum()


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 5, 7), (1, 1, 1), (2, 2, 3)])
@pytest.mark.parametrize("batches", [((4,), (4,)), ((6, 4), (4,)), ((), (5,)), ((2, 3), (2, 3)), ((1, 4), (3, 4))])
def test_bernoulli_images_and_their_gradient_are_torchs_in_float64(shape, batches):
    generator = torch.Generator().manual_seed(0)
    logits = 8 * torch.randn(*batches[0], *shape, generator=generator, dtype=torch.float64)
    x = (torch.rand(*batches[1], *shape, generator=generator) < 0.4).double()
    weights = torch.randn(torch.broadcast_shapes(*batches), generator=generator, dtype=torch.float64)
    results = []
    for build in (
        BernoulliLikelihood(shape),
        lambda own: torch.distributions.Independent(torch.distributions.Bernoulli(logits=own), 3),
    ):
        own = logits.clone().requires_grad_()
        log_p = build(own).log_prob(x)
        (log_p * weights).sum().backward()
        results.append((log_p.detach(), own.grad))
    torch.testing.assert_close(results[0][0], results[1][0], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("size", [0.1, 3.0, 20.0, 60.0, 300.0])
def test_bernoulli_images_in_float32_are_as_near_to_float64_as_their_sum_is(size):
    """784 pixels: summed in float32, torch's own terms are off by up to 1e-6 of their sum of absolute values."""
    generator = torch.Generator().manual_seed(1)
    logits = size * torch.randn(200, 1, 28, 28, generator=generator)
    x = (torch.rand(200, 1, 28, 28, generator=generator) < 0.5).float()
    exact = torch.distributions.Bernoulli(logits=logits.double()).log_prob(x.double()).sum((1, 2, 3))
    log_p = BernoulliLikelihood((1, 28, 28))(logits).log_prob(x)
    assert ((log_p - exact).abs() <= 1e-6 * exact.abs() + 1e-5).all()


@pytest.mark.parametrize("logit", [5.0, 10.8, 10.9, 10.95, 11.0, 11.5, 12.5, 20.0, 40.0, 88.0, 104.0])
@pytest.mark.parametrize("wrong", [1, 50, 784])
def test_bernoulli_images_are_exact_where_products_of_their_factors_are_too_large(logit, wrong):
    """Eight factors of e¹¹ each are beyond every float32."""
    x = torch.ones(3, 1, 28, 28)
    logits = torch.full((3, 784), logit)
    logits[1, :wrong] = -logit
    log_p = BernoulliLikelihood((1, 28, 28))(logits.reshape(x.shape)).log_prob(x)
    right, missed = scipy.special.log_expit(logit), scipy.special.log_expit(-logit)
    expected = torch.tensor([784 * right, wrong * missed + (784 - wrong) * right, 784 * right])
    torch.testing.assert_close(log_p.double(), expected.double(), rtol=1e-6, atol=1e-4)


def test_bernoulli_images_may_be_bytes_or_none():
    likelihood, logits = BernoulliLikelihood((1, 4, 4)), torch.full((2, 1, 4, 4), 0.02)
    bits = torch.ones(2, 1, 4, 4, dtype=torch.uint8)
    torch.testing.assert_close(likelihood(logits).log_prob(bits), likelihood(logits).log_prob(bits.float()))
    assert likelihood(logits[:0]).log_prob(bits[:0]).shape == (0,)


def test_bernoulli_sums_to_one_over_all_images():
    assert abs(bernoulli_total(3 * torch.randn(1, *SHAPE, dtype=torch.float64)) - 1) < 1e-12


@pytest.mark.parametrize("logit", [-1e6, -200.0, -3.0, 0.0, 3.0, 200.0, 1e6])
def test_bernoulli_is_scipys_log_expit(logit):
    p = BernoulliLikelihood((1, 1, 2))(torch.full((1, 1, 2), logit))
    close(p.log_prob(torch.tensor([[[1.0, 0.0]]])), scipy.special.log_expit(logit) + scipy.special.log_expit(-logit))


def test_normal_likelihood_is_scipys_with_the_scale_it_was_given():
    mean, x = torch.randn(5, *SHAPE), torch.rand(5, *SHAPE)
    for scale in (1e-4, 0.3, 100):
        likelihood = NormalLikelihood(SHAPE, scale=scale)
        expected = scipy.stats.norm(mean.numpy(), scale).logpdf(x.numpy()).sum((1, 2, 3))
        np.testing.assert_allclose(likelihood(mean).log_prob(x), expected, rtol=1e-5)
        assert not list(likelihood.parameters())
    assert [p.shape for p in NormalLikelihood(SHAPE).parameters()] == [()]


@pytest.mark.parametrize("scale", [0, -1.0, math.nan, math.inf, "wide", "perpixel", None, True])
def test_annotations_refuse_a_scale_that_is_none(scale):
    assert not takes(NormalLikelihood, "scale", scale) and not takes(LaplaceLikelihood, "scale", scale)
    assert takes(NormalLikelihood, "scale", "residual") and not takes(LaplaceLikelihood, "scale", "residual")


@pytest.mark.parametrize(
    "cls", [BernoulliLikelihood, ContinuousBernoulliLikelihood, NormalLikelihood, DiscretizedLogisticLikelihood]
)
def test_every_likelihood_can_start_at_a_mean_image(cls):
    likelihood = cls((3, 4, 5))
    mean = 0.1 + 0.8 * torch.rand(3, 4, 5)
    output = likelihood.start_at(mean, torch.full_like(mean, 0.05))
    assert tuple(output.shape) == likelihood.output_shape
    torch.testing.assert_close(likelihood(output).mean, mean, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    "cls", [BernoulliLikelihood, ContinuousBernoulliLikelihood, NormalLikelihood, DiscretizedLogisticLikelihood]
)
def test_every_likelihood_gives_one_number_per_draw_and_image(cls):
    likelihood = cls((3, 4, 5))
    output = torch.randn(7, 2, *likelihood.output_shape)
    assert likelihood(output).log_prob(torch.ones(2, 3, 4, 5)).shape == (7, 2)
    assert likelihood(output).mean.shape == (7, 2, 3, 4, 5)


def test_laplace_is_scipys_even_far_away():
    likelihood, x = LaplaceLikelihood((1, 2, 2), 0.02), torch.rand(5, 1, 2, 2)
    loc = torch.randn(5, 1, 2, 2)
    expected = scipy.stats.laplace(loc.double().numpy(), 0.02).logpdf(x.double().numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(likelihood(loc).log_prob(x), expected, rtol=1e-5)
    assert float(likelihood(loc + 1e6).log_prob(x).max()) == pytest.approx(-4e6 / 0.02, rel=1e-3)


@pytest.mark.parametrize("cls", [NormalLikelihood, LaplaceLikelihood])
def test_a_scale_per_pixel_is_the_decoders_second_half(cls):
    likelihood = cls((2, 3, 3), "per_pixel")
    assert likelihood.output_shape == (4, 3, 3)
    output, x = torch.randn(5, 4, 3, 3), torch.rand(5, 2, 3, 3)
    torch_class = {NormalLikelihood: torch.distributions.Normal, LaplaceLikelihood: torch.distributions.Laplace}[cls]
    expected = torch_class(output[:, :2], output[:, 2:].exp()).log_prob(x).sum((1, 2, 3))
    torch.testing.assert_close(likelihood(output).log_prob(x), expected)


def test_a_residual_scale_becomes_the_trainings_root_mean_square_and_stays_in_evaluation():
    likelihood = NormalLikelihood((1, 8, 8), "residual")
    likelihood.start_at(torch.full((1, 8, 8), 0.5), torch.full((1, 8, 8), 0.3))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.3)
    for _ in range(600):
        mean = torch.rand(64, 1, 8, 8)
        likelihood(mean).log_prob(mean + 0.07 * torch.randn_like(mean))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.07, rel=0.02)
    likelihood(torch.full((2, 1, 8, 8), math.inf)).log_prob(torch.zeros(2, 1, 8, 8))
    assert float(likelihood.log_scale.exp()) == pytest.approx(0.07, rel=0.02), "one bad batch changes nothing"
    likelihood.eval()
    before = likelihood.log_scale.clone()
    x, mean = torch.rand(5, 1, 8, 8), torch.rand(5, 1, 8, 8)
    log_p = likelihood(mean).log_prob(x)
    assert torch.equal(likelihood.log_scale, before) and "raw_scale" in likelihood.state_dict()
    expected = scipy.stats.norm(mean.numpy(), float(before.exp())).logpdf(x.numpy()).sum((1, 2, 3))
    np.testing.assert_allclose(log_p, expected, rtol=1e-4)


@pytest.mark.parametrize("cls", [DiscretizedLogisticMixtureLikelihood, CategoricalLikelihood])
def test_channels_are_the_decoders_in_the_right_order_and_start_at_the_mean(cls):
    likelihood = cls((3, 2, 2))
    mean, std = torch.rand(3, 2, 2) * 0.6 + 0.2, torch.full((3, 2, 2), 0.1)
    output = likelihood.start_at(mean, std)
    assert output.shape == likelihood.output_shape
    torch.testing.assert_close(likelihood(output.unsqueeze(0)).mean[0], mean, rtol=0, atol=0.02)


@pytest.mark.parametrize("cls", [DiscretizedLogisticMixtureLikelihood, CategoricalLikelihood, LaplaceLikelihood])
def test_log_probabilities_are_finite_in_float32_for_wild_outputs(cls):
    likelihood = cls((1, 2, 2))
    for size in (1.0, 30.0, 1e4):
        output = (size * torch.randn(9, *likelihood.output_shape)).requires_grad_()
        x = torch.randint(0, 256, (9, 1, 2, 2)) / 255
        total = likelihood(output).log_prob(x)
        total.sum().backward()
        assert total.isfinite().all() and output.grad.isfinite().all()


def test_a_categorical_is_scipys_log_softmax_for_wild_logits():
    likelihood = CategoricalLikelihood((1, 1, 1))
    logits = 1e4 * torch.randn(1, 256, 1, 1)
    levels = torch.arange(256).reshape(-1, 1, 1, 1) / 255
    close(likelihood(logits).log_prob(levels), scipy.special.log_softmax(logits.double().flatten().numpy()))


@pytest.mark.parametrize("far", FAR)
def test_densities_of_pixels_are_exact_however_far(far):
    loc, x = torch.full((1, 1, 1), far), torch.full((1, 1, 1), 0.5)
    normal, laplace = NormalLikelihood((1, 1, 1), scale=0.05), LaplaceLikelihood((1, 1, 1), scale=0.05)
    scale = float(normal.log_scale.double().exp())
    close(normal(loc).log_prob(x), scipy.stats.norm(far, scale).logpdf(0.5))
    close(laplace(loc).log_prob(x), -abs(far - 0.5) / scale - np.log(2 * scale))  # scipy's own underflows


@pytest.mark.parametrize("cls", LIKELIHOODS)
@pytest.mark.parametrize("shape", [(12,), (3, 4), (2, 3, 2), (1, 2, 3, 2)])
def test_an_example_may_have_any_shape(cls, shape):
    """Each value has the probability that it has in a vector of the same values."""
    likelihood, flat = cls(shape), cls((12,))
    parameters = torch.randn(5, 2, likelihood.output_shape[0] // shape[0], *shape)
    x = (torch.rand(2, *shape) < 0.5).float()
    p = likelihood(parameters.flatten(2, 3))
    q = flat(parameters.flatten(3).flatten(2))
    assert p.batch_shape == (5, 2) and p.mean.shape == (5, 2, *shape) and p.sample().shape == (5, 2, *shape)
    torch.testing.assert_close(p.log_prob(x), q.log_prob(x.flatten(1)))
    mean = torch.full(shape, 0.4)
    output = likelihood.start_at(mean, torch.full(shape, 0.1))
    assert tuple(output.shape) == likelihood.output_shape
    torch.testing.assert_close(likelihood(output).mean, mean, rtol=0, atol=0.02)


@pytest.mark.parametrize("scale", ["learned", "per_position", "per_pixel", 0.05])
def test_a_discretized_logistic_sums_to_one_over_the_256_levels_whatever_its_scale(scale):
    likelihood = DiscretizedLogisticLikelihood((2, 1, 3), scale)
    output = likelihood.start_at(torch.rand(2, 1, 3), 0.3 * torch.rand(2, 1, 3))
    levels = torch.linspace(0, 1, 256).reshape(-1, 1, 1, 1).expand(-1, 2, 1, 3)
    by_value = likelihood(output).base_dist.log_prob(levels).exp().sum(0)
    torch.testing.assert_close(by_value, torch.ones(2, 1, 3))


@pytest.mark.parametrize("cls", [NormalLikelihood, LaplaceLikelihood, DiscretizedLogisticLikelihood])
@pytest.mark.parametrize("scale", ["learned", "per_position", "per_pixel"])
def test_a_learned_scale_starts_at_the_spread_of_the_data_and_no_narrower_than_one_fiftieth(cls, scale):
    """The standard deviation is scipy's of the location-scale family."""
    family = {
        NormalLikelihood: scipy.stats.norm,
        LaplaceLikelihood: scipy.stats.laplace,
        DiscretizedLogisticLikelihood: scipy.stats.logistic,
    }[cls]

    def starting(std):
        likelihood = cls((1, 1, 2), scale)
        output = likelihood.start_at(torch.full((1, 1, 2), 0.5), std)
        base = likelihood(output).base_dist
        is_logistic = cls is DiscretizedLogisticLikelihood  # whose scale may have fewer axes
        found = base.log_scale.exp().expand_as(base.loc) if is_logistic else base.scale
        return (found.detach().flatten().double() * family(0, 1).std()).numpy()

    np.testing.assert_allclose(starting(torch.zeros(1, 1, 2)), 0.02, rtol=1e-5)
    shared = math.sqrt((0.3**2 + 0.1**2) / 2)
    expected = [shared, shared] if scale == "learned" else [0.3, 0.1]
    np.testing.assert_allclose(starting(torch.tensor([[[0.3, 0.1]]])), expected, rtol=1e-5)


def test_the_image_of_a_wide_logistic_is_its_median_where_its_mean_is_gray():
    likelihood = DiscretizedLogisticLikelihood((1, 1, 3), 0.5)
    p = likelihood(torch.tensor([[[-0.2, 0.9, 1.4]]]))
    levels = torch.arange(256) / 255
    probabilities = p.base_dist.log_prob(levels.reshape(-1, 1, 1, 1)).exp().reshape(256, 3)
    medians = levels[(probabilities.cumsum(0) < 0.5).sum(0)]
    torch.testing.assert_close(likelihood.image(p).flatten(), medians, atol=0.51 / 255, rtol=0)
    assert ((p.mean - 0.5).abs() < (likelihood.image(p) - 0.5).abs()).all()


def test_the_image_of_a_mixture_lies_between_its_components_locations():
    likelihood = DiscretizedLogisticMixtureLikelihood((1, 1, 1), 2)
    output = torch.tensor([math.log(3.0), 0.0, 0.2, 1.6, 1.0, 1.0]).reshape(6, 1, 1)
    assert likelihood.image(likelihood(output)).item() == pytest.approx(0.75 * 0.2 + 0.25 * 1.0)
