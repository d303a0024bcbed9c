"""Flows are normalized and stay finite."""

import pytest
import torch

from tests.support.annotations import takes
from tests.support.densities import F64, FAR, grid, shaken
from vae_cli.distributions import (
    FlowPosterior,
    FlowPrior,
)
from vae_cli.errors import ConfigError


@pytest.mark.parametrize("kind", ["coupling", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("maf", "nsf"))])
@torch.no_grad()
def test_a_flow_posterior_integrates_to_one_and_knows_the_density_of_its_draws(kind):
    posterior = shaken(FlowPosterior(2, kind, 2, (8,), context=3, bins=4))
    features = 0.5 * torch.randn(1, posterior.features, dtype=F64)
    features[:, 2:4] = 0
    q = posterior(features)
    z, cell = grid(25, 1001) if kind == "maf" else grid(6, 501)
    total = sum(float(q.log_prob(row.unsqueeze(-2)).exp().sum()) for row in z) * cell
    assert total == pytest.approx(1, abs=1e-3)
    drawn, log_prob = q.rsample_and_log_prob(torch.randn(50, 1, 2, dtype=F64))
    torch.testing.assert_close(log_prob, q.log_prob(drawn), rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["maf", "nsf"])
def test_a_frozen_flow_of_one_dimension_has_no_gradient_of_its_own_either(kind):
    posterior = FlowPosterior(1, kind, 2, (8,), context=3)
    features, z = torch.randn(4, posterior.features, requires_grad=True), torch.randn(4, 1, requires_grad=True)
    total = posterior(features).frozen().log_prob(z).sum()
    of_z, *own = torch.autograd.grad(total, [z, features, *posterior.parameters()], allow_unused=True)
    assert of_z.abs().sum() > 0 and all(gradient is None for gradient in own)
    assert torch.autograd.grad(posterior(features).log_prob(z).sum(), features)[0].abs().sum() > 0


@pytest.mark.parametrize("kind", ["coupling", "maf", "nsf"])
@pytest.mark.parametrize("far", FAR[:-1])
def test_a_flow_stays_finite_with_finite_gradients(kind, far):
    torch.manual_seed(0)
    posterior, prior = FlowPosterior(2, kind, context=3), FlowPrior(2, kind)
    features = torch.randn(4, posterior.features, requires_grad=True)
    z = far * torch.randn(4, 2)
    total = posterior(features).log_prob(z) + prior(lambda x: None).log_prob(z)
    total.sum().backward()
    assert total.isfinite().all() and features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in [*posterior.parameters(), *prior.parameters()] if p.grad is not None)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FlowPrior(1, "coupling"),
        lambda: FlowPrior(10**6, hidden=[10**6]),
    ],
)
def test_flows_that_cannot_be_built_are_refused(make):
    with pytest.raises(ConfigError):
        make()


@pytest.mark.parametrize(
    ("key", "value"), [("kind", "iaf"), ("transforms", 0), ("hidden", [0]), ("hidden", 64), ("bins", 0)]
)
def test_annotations_refuse_what_is_no_flow(key, value):
    assert not takes(FlowPrior, key, value) and not takes(FlowPosterior, key, value)
