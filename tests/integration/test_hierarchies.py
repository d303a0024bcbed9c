"""Hierarchies of latent variables with every objective and prior, and what is refused for them."""

import itertools
import math
from functools import cache

import pytest
import torch

from vae_cli import noise
from vae_cli.build import options, parts, registry
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

SHAPE, CLASSES = (1, 8, 8), 3
MODELS = {
    "ladder": {"latents": [3, 2], "widths": [8, 6], "depth": 1},
    "top_down": {"latents": [1, 2], "channels": [4, 8], "blocks": [2, 1], "depth": 1},
}
PRIORS = ("standard_normal", "learned_normal", "mixture_of_normals", "vampprior", "flow")
OBJECTIVES = ("elbo", "stl", "iwae", "dreg")
COMBINATIONS = [  # every seventh is quick, so that each model, prior, objective, and labels or none, is among them
    pytest.param(*chosen, marks=[] if number % 7 == 0 else pytest.mark.slow)
    for number, chosen in enumerate(itertools.product(MODELS, PRIORS, OBJECTIVES, (False, True)))
]


def config_of(model, *overrides):
    composed = composed_once(model, *overrides)
    return composed | {"model": composed["model"] | MODELS[model]}


@cache
def composed_once(model, *overrides):
    composed, _ = registry.check_groups(compose.compose("train", [f"model={model}", *overrides]), [])
    return composed


@pytest.mark.parametrize(("model", "prior", "objective", "conditional"), COMBINATIONS)
def test_a_step_of_every_combination_has_finite_numbers_and_gradients(model, prior, objective, conditional):
    nodes = {"prior": options.option("prior", prior), "objective": options.option("objective", objective)}
    nodes["prior"] |= {"components": 4} if "components" in nodes["prior"] else {}
    config = config_of(model, "likelihood=bernoulli") | nodes | {"mc_samples": 3, "conditional": conditional}
    torch.manual_seed(0)
    built = parts.model(config, facts := DataFacts("x", SHAPE, "binary", CLASSES, 40))
    chosen = parts.objective(config, built, facts, 5)
    x, y = (torch.rand(5, *SHAPE) > 0.5).float(), torch.arange(5) % CLASSES
    epsilon = noise.by_image(5, 3, chosen.noise_dim(built), 0, "test")
    bound = chosen(built, (x, y if conditional else None), epsilon, 3)
    bound.loss.backward()
    torch.testing.assert_close(bound.elbo, bound.terms["reconstruction"] - bound.terms["kl"])
    levels = [bound.terms[f"kl_{name}"] for name in built.level_sizes]
    torch.testing.assert_close(sum(levels), bound.terms["kl"])
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    assert math.isfinite(float(bound.loss.detach()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        *(
            ([f"objective={name}"], f"objective={name} and model=ladder do not go together: it needs one latent vector")
            for name in ("beta_tc", "factor_vae", "dip_vae", "info_vae")
        ),
        (["objective.beta=[1,1,1]"], "it has 3 weights, and the model 2 levels; give a number, or 2 from z1 on"),
        (["objective.kl=analytic", "prior=vampprior"], "model=ladder and prior=vampprior do not go together"),
        (["objective.beta=[1,1]", "objective.capacity=3"], "objective.capacity reshapes the sum"),
    ],
)
def test_what_is_not_defined_for_a_hierarchy_is_refused_by_name(settings, message):
    config = config_of("ladder", "likelihood=bernoulli", *settings)
    facts = DataFacts("x", SHAPE, "binary", 0, 40)
    with pytest.raises(ConfigError) as caught:
        parts.objective(config, parts.model(config, facts), facts, 5)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["latent_dim=3"], "latent_dim: model=ladder has model.latents, model.widths"),
        (["encoder=conv"], "encoder: model=ladder has model.latents"),
        (["decoder.hidden=[3]"], "decoder.hidden: model=ladder has"),
        (["model.latents=[3]"], "model.latents has 1 entries and model.widths 5: give both one for each level"),
        (["model.latent=[3]"], "unknown key model.latent: did you mean model.latents?"),
        (["model.widths=3"], "model.widths=3: model.widths accepts a list"),
    ],
)
def test_keys_that_a_hierarchy_does_not_take_are_refused_with_those_that_it_has(overrides, message):
    keys = [word.partition("=")[0] for word in overrides]
    with pytest.raises(ConfigError) as caught:
        config = compose.compose("train", ["model=ladder", "likelihood=bernoulli", *overrides])
        config, _ = registry.check_groups(config, keys)
        parts.model(config, DataFacts("x", SHAPE, "binary", 0, 40))
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"blocks": [1, 0]}, SHAPE, "model.blocks has 0 levels at the top"),
        ({"blocks": [1, 1, 1]}, SHAPE, "model.latents, model.channels and model.blocks have 2, 2 and 3 entries"),
        (
            {"latents": [1] * 5, "channels": [4] * 5, "blocks": [1] * 5},
            SHAPE,
            "images of 8x8 are too small for the 5 sizes of model.channels; give 3 at most",
        ),
        (
            {"stem": 1, "latents": [1] * 5, "channels": [4] * 5, "blocks": [1] * 5},
            SHAPE,
            "model.channels; give 4 at most",
        ),
        ({}, (1, 2, 3), "images of 2x3 are too small for the 2 sizes of model.channels; choose model=ladder"),
        ({}, (12,), "need images (C, H, W), and these examples have the shape (12,); choose model=ladder"),
    ],
)
def test_maps_that_do_not_fit_the_images_are_refused(changes, shape, message):
    config = config_of("top_down", "likelihood=bernoulli")
    config["model"] |= changes
    with pytest.raises(ConfigError) as caught:
        parts.model(config, DataFacts("x", shape, "binary", 0, 40))
    assert message in str(caught.value) and "encoder" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 27, 29), (2, 16, 40)])
def test_feature_maps_fit_images_of_any_size(shape):
    for stem in (1, 2):
        config = config_of("top_down", "likelihood=discretized_logistic")
        config["model"] |= {"channels": [4, 4, 8], "latents": [1, 1, 2], "blocks": [1, 0, 1], "stem": stem}
        model = parts.model(config, DataFacts("x", shape, "levels256", 0, 40))
        p = model.sample(torch.randn(2, model.prior_noise_dim))
        assert p.log_prob(torch.rand(2, *shape)).shape == (2,) and model.likelihood.image(p).shape == (2, *shape)
