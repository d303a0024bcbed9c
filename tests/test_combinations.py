"""Every posterior with every prior, likelihood and objective."""

import itertools

import pytest
import torch

from vae_cli import build, config, schema
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

SHAPE = (1, 4, 4)
SUPPORT = {"bernoulli": "binary"}
SMALL = {
    ("prior", "flow"): {"hidden": [6], "transforms": 2},
    ("prior", "vampprior"): {"components": 4},
    ("posterior", "flow"): {"hidden": [6], "context": 3},
}
BASE = config.compose("train", ["latent_dim=2", "encoder.hidden=[8]", "decoder.hidden=[8]", "mc_samples=2"])
GROUPS = ("posterior", "prior", "likelihood", "objective")
REFUSED = {
    ("objective", "beta_tc", "prior"): {"flow", "mixture_of_normals", "vampprior"},
    ("objective", "beta_tc", "posterior"): {"flow"},
}


def names(group):
    return [name for name in schema.options(group) if name != "auto"]


COMBINATIONS = list(itertools.product(*map(names, GROUPS)))


def built(chosen):
    options = {group: config.option(group, name) | SMALL.get((group, name), {}) for group, name in zip(GROUPS, chosen)}
    composed = BASE | options
    facts = DataFacts("x", SHAPE, SUPPORT.get(chosen[2], "levels256"), 0, 40)
    torch.manual_seed(0)
    model = build.model(composed, facts)
    return model, build.objective(composed, model, facts, 5)


def is_refused(posterior, prior, likelihood, objective):
    return objective == "beta_tc" and (
        prior in REFUSED["objective", "beta_tc", "prior"] or posterior in REFUSED["objective", "beta_tc", "posterior"]
    )


def paced(chosen):
    """Three likelihoods of different kinds every time, the others in the slow tests."""
    quick = chosen[2] in ("bernoulli", "discretized_logistic", "normal")
    return pytest.param(chosen, id="-".join(chosen), marks=[] if quick else pytest.mark.slow)


@pytest.mark.parametrize("chosen", map(paced, COMBINATIONS))
def test_every_combination_takes_a_step_samples_reconstructs_and_is_loaded_again(chosen):
    if is_refused(*chosen):
        with pytest.raises(ConfigError, match="objective=beta_tc needs"):
            built(chosen)
        return
    model, objective = built(chosen)
    x = torch.rand(6, *SHAPE).mul(255).round() / 255
    x = x.round() if chosen[2] == "bernoulli" else x
    noise = torch.randn(2, 6, objective.noise_dim(model))
    bound = objective(model, (x, None), noise, 0)
    assert bound.elbo.shape == bound.bound.shape == (6,) and bound.loss.shape == ()
    assert {"reconstruction", "kl"} <= bound.terms.keys()
    torch.testing.assert_close(bound.elbo, bound.terms["reconstruction"] - bound.terms["kl"])
    bound.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or "flow" in name, name
    torch.optim.Adam(model.parameters()).step()
    with torch.no_grad():
        images = model.sample(torch.randn(3, model.prior.noise_dim))
        assert images.mean.shape == images.sample().shape == (3, *SHAPE)
        assert model.reconstruct(x).mean.shape == x.shape
        other, _ = built(chosen)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.eval().encode(x), model.eval().encode(x))
