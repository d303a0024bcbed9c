"""Every posterior with every prior, likelihood and objective, with and without labels."""

import itertools

import pytest
import torch

from vae_cli.build import options, parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

SHAPE, CLASSES = (1, 4, 4), 3
OF_PRESETS = ("auto", "dreg", "stl", "tomczak", "hierarchy", "realnvp")  # other settings of classes that are there
SUPPORT = {"bernoulli": "binary"}
QUICK = ("bernoulli", "discretized_logistic", "normal")
FLOWS = ("coupling", "maf", "nsf")
SMALL = {"hidden": [16], "context": 3, "transforms": 2, "components": 4, "bins": 4}
BASE = compose.compose("train", ["latent_dim=2", "encoder.hidden=[8]", "decoder.hidden=[8]", "mc_samples=2"])
GROUPS = ("posterior", "prior", "likelihood", "objective")
# What the guide says cannot be: .docs/models.md.
REFUSED = {
    ("beta_tc", "mixture_of_normals"),
    ("beta_tc", "vampprior"),
    *(("beta_tc", f"prior flow {kind}") for kind in FLOWS),
    *((name, f"posterior flow {kind}") for name in ("beta_tc", "dip_vae") for kind in FLOWS),
}


def choices(group):
    """Every class of a group once; flows once for each kind."""
    configs = {name: options.option(group, name) for name in options.options(group) if name not in OF_PRESETS}
    flow = configs.pop("flow", None)
    return configs | ({f"{group} flow {kind}": flow | {"kind": kind} for kind in FLOWS} if flow else {})


OF_VALUES = ("mixed", "negative_binomial", "poisson", "student_t", "zero_inflated_negative_binomial")  # not of images
OPTIONS = {group: {name: node for name, node in choices(group).items() if name not in OF_VALUES} for group in GROUPS}
COMBINATIONS = list(itertools.product(*OPTIONS.values(), (False, True)))


def built(chosen):
    *names, conditional = chosen
    nodes = {group: OPTIONS[group][name] for group, name in zip(GROUPS, names)}
    small = {group: node | {key: SMALL[key] for key in SMALL.keys() & node.keys()} for group, node in nodes.items()}
    composed = BASE | small | {"conditional": conditional}
    facts = DataFacts("x", SHAPE, SUPPORT.get(names[2], "levels256"), CLASSES, 40)
    torch.manual_seed(0)
    model = parts.model(composed, facts)
    return model, parts.objective(composed, model, facts, 5)


def paced(number, chosen):
    """A share that covers every pair of parts, of the three usual likelihoods, the rest in the slow tests."""
    *_, likelihood, _, conditional = chosen
    turn = sum(list(OPTIONS[group]).index(name) for group, name in zip(GROUPS, chosen) if group != "likelihood")
    usual = QUICK[(number // 2 + conditional) % 3] == likelihood and turn % 2 == conditional
    name = "-".join(chosen[:4]) + ("-conditional" if conditional else "")
    return pytest.param(chosen, id=name.replace(" ", "_"), marks=[] if usual else pytest.mark.slow)


@pytest.mark.parametrize("chosen", list(itertools.starmap(paced, enumerate(COMBINATIONS))))
def test_every_combination_takes_a_step_samples_reconstructs_and_is_loaded_again(chosen):
    posterior, prior, _, objective_name, conditional = chosen
    refused = {(objective_name, prior), (objective_name, posterior)} & REFUSED
    if refused:
        both = rf"objective={objective_name} and (posterior|prior)=\w+ do not go together: (the terms of|it needs) the"
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
    assert (bound.module_loss is None) == (objective.module is None)
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
    torch.optim.Adam(model.parameters()).step()
    with torch.no_grad():
        images = model.sample(torch.randn(3, model.prior.noise_dim), y=y[:3] if conditional else None)
        assert images.mean.shape == images.sample().shape == (3, *SHAPE)
        assert model.reconstruct(x, y).mean.shape == x.shape
        other, _ = built(chosen)
        other.load_state_dict(model.state_dict())
        assert torch.equal(other.eval().encode(x, y).mean, model.eval().encode(x, y).mean)


MODELS = list(itertools.product(OPTIONS["posterior"], OPTIONS["prior"], (False, True)))


def grid(half_width, points=141):
    """Points (points², 1, 2) and the logarithm of a cell's area."""
    line = torch.linspace(-half_width, half_width, points)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 1, 2)
    return z, 2 * (line[1] - line[0]).log()


def evidence_over_z(model, x, y):
    """log ∫ p(x|z) p(z) dz of each image."""
    z, log_cell = grid(10.0)
    parts = [part.expand(-1, len(x), -1) for part in z.split(5000)]
    prior = model.latent_prior(y)
    log_joint = torch.cat([model.decode(part, y).log_prob(x) + prior.log_prob(part) for part in parts])
    return log_joint.double().logsumexp(0) + log_cell


def evidence_over_noise(model, x, y):
    """log ∫ N(ε) p(x|z) p(z) / q(z|x) dε at z = z(ε): what many draws arrive at."""
    noise, log_cell = grid(16.0)
    log_joints = []
    for part in noise.split(5000):
        e = model.evidence(x, part.expand(-1, len(x), -1), y)
        log_density = torch.distributions.Normal(0, 1).log_prob(part.double()).sum(-1)
        log_joints.append((e.log_p_x_given_z + e.log_p_z - e.log_q_z_given_x).double() + log_density)
    return torch.cat(log_joints).logsumexp(0) + log_cell


def numbered(number):
    """The dear ones, where every component's flow is turned round for every z, are slow tests."""
    posterior, prior, _ = MODELS[number]
    dear = prior == "vampprior" and posterior in ("posterior flow maf", "posterior flow nsf")
    name = "-".join(map(str, MODELS[number])).replace(" ", "_")
    return pytest.param(number, id=name, marks=[pytest.mark.slow] if dear else [])


@pytest.mark.parametrize("number", [numbered(n) for n in range(len(MODELS))])
@torch.no_grad()
def test_importance_weights_integrate_to_the_evidence_and_the_elbo_is_below_it(number):
    posterior, prior, conditional = MODELS[number]
    likelihood = QUICK[number % 3]
    model, _ = built((posterior, prior, likelihood, "iwae", conditional))
    x, y = torch.rand(3, *SHAPE).mul(255).round() / 255, torch.arange(3)
    x = x.round() if likelihood == "bernoulli" else x
    expected = evidence_over_z(model, x, y)
    torch.testing.assert_close(evidence_over_noise(model, x, y), expected, rtol=0, atol=0.01)
    e = model.evidence(x, torch.randn(4000, 3, model.noise_dim), y)
    log_w = (e.log_p_x_given_z + e.log_p_z - e.log_q_z_given_x).double()
    assert (log_w.mean(0) <= expected + 4 * log_w.std(0) / len(log_w) ** 0.5).all()


@pytest.mark.parametrize(
    ("group", "name"), [(group, name) for group in GROUPS for name in OPTIONS[group]], ids=lambda v: v.replace(" ", "_")
)
def test_bfloat16_is_for_the_networks_alone(group, name):
    """Every part with the others at their plainest: densities in float32, values those of float32 to three digits."""
    chosen = {"posterior": "diagonal_normal", "prior": "standard_normal", "likelihood": "normal", "objective": "elbo"}
    chosen[group] = name
    model, objective = built((*chosen.values(), False))
    x = torch.rand(6, *SHAPE).mul(255).round() / 255
    x = x.round() if chosen["likelihood"] == "bernoulli" else x
    noise = torch.randn(2, 6, objective.noise_dim(model))
    full = objective(model, (x, None), noise, 0)
    model.precision = torch.bfloat16
    half = objective(model, (x, None), noise, 0)
    half.loss.backward()
    evidence = model.evidence(x, noise[..., : model.noise_dim])
    for value in (evidence.log_p_x_given_z, evidence.log_p_z, evidence.log_q_z_given_x, half.loss, half.elbo):
        assert value.dtype == torch.float32
    torch.testing.assert_close(half.elbo, full.elbo, rtol=0.02, atol=0.05)
    assert not torch.equal(half.elbo, full.elbo)
    assert all(p.grad.isfinite().all() for p in model.parameters())
