"""Every posterior with every prior, likelihood and objective, with and without labels."""

import itertools

import pytest
import torch

from vae_cli import build, config, schema
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

SHAPE, CLASSES = (1, 4, 4), 3
OF_PRESETS = ("auto", "dreg", "tomczak")  # other settings of classes that are there
SUPPORT = {"bernoulli": "binary"}
QUICK = ("bernoulli", "discretized_logistic", "normal")
FLOWS = ("coupling", "maf", "nsf")
SMALL = {"hidden": [6], "context": 3, "transforms": 2, "components": 4, "bins": 4}
BASE = config.compose("train", ["latent_dim=2", "encoder.hidden=[8]", "decoder.hidden=[8]", "mc_samples=2"])
GROUPS = ("posterior", "prior", "likelihood", "objective")
# What the README says cannot be.
REFUSED = {
    ("beta_tc", "mixture_of_normals"),
    ("beta_tc", "vampprior"),
    *(("beta_tc", f"prior flow {kind}") for kind in FLOWS),
    *(("beta_tc", f"posterior flow {kind}") for kind in FLOWS),
}


def choices(group):
    """Every class of a group once; flows once for each kind."""
    found = {name: config.option(group, name) for name in schema.options(group) if name not in OF_PRESETS}
    flow = found.pop("flow", None)
    return found | ({f"{group} flow {kind}": flow | {"kind": kind} for kind in FLOWS} if flow else {})


OPTIONS = {group: choices(group) for group in GROUPS}
COMBINATIONS = list(itertools.product(*OPTIONS.values(), (False, True)))


def built(chosen):
    *names, conditional = chosen
    nodes = {group: OPTIONS[group][name] for group, name in zip(GROUPS, names)}
    small = {group: node | {key: SMALL[key] for key in SMALL.keys() & node.keys()} for group, node in nodes.items()}
    composed = BASE | small | {"conditional": conditional}
    facts = DataFacts("x", SHAPE, SUPPORT.get(names[2], "levels256"), CLASSES, 40)
    torch.manual_seed(0)
    model = build.model(composed, facts)
    return model, build.objective(composed, model, facts, 5)


def paced(number, chosen):
    """A covering share of the likelihoods that are of the three usual kinds, the rest in the slow tests."""
    posterior, prior, likelihood, objective, conditional = chosen
    usual = QUICK[(number // 2 + conditional) % 3] == likelihood
    name = "-".join(chosen[:4]) + ("-conditional" if conditional else "")
    return pytest.param(chosen, id=name.replace(" ", "_"), marks=[] if usual else pytest.mark.slow)


@pytest.mark.parametrize("chosen", list(itertools.starmap(paced, enumerate(COMBINATIONS))))
def test_every_combination_takes_a_step_samples_reconstructs_and_is_loaded_again(chosen):
    posterior, prior, _, objective_name, conditional = chosen
    refused = {(objective_name, prior), (objective_name, posterior)} & REFUSED
    if refused:
        both = rf"objective={objective_name} and (posterior|prior)=\w+ do not go together: the terms of the KL"
        with pytest.raises(ConfigError, match=both):
            built(chosen)
        return
    model, objective = built(chosen)
    x = torch.rand(6, *SHAPE).mul(255).round() / 255
    x = x.round() if chosen[2] == "bernoulli" else x
    y = torch.arange(6) % CLASSES
    noise = torch.randn(2, 6, objective.noise_dim(model))
    bound = objective(model, (x, y), noise, 0)
    assert bound.elbo.shape == bound.bound.shape == (6,) and bound.loss.shape == ()
    assert {"reconstruction", "kl"} <= bound.terms.keys()
    torch.testing.assert_close(bound.elbo, bound.terms["reconstruction"] - bound.terms["kl"])
    bound.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0 or "flow" in name, name
    torch.optim.Adam(model.parameters()).step()
    with torch.no_grad():
        images = model.sample(torch.randn(3, model.prior.noise_dim), y=y[:3] if conditional else None)
        assert images.mean.shape == images.sample().shape == (3, *SHAPE)
        assert model.reconstruct(x, y).mean.shape == x.shape
        other, _ = built(chosen)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.eval().encode(x, y), model.eval().encode(x, y))
