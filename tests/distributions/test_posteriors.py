"""Heads that give q(z|x)."""

import pytest
import torch

from vae_cli.distributions import (
    DiagonalNormal,
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
)


def test_posterior_heads_take_all_their_features_and_start_near_any_scale():
    for head, count in ((DiagonalNormalPosterior(4), 8), (FullNormalPosterior(4), 14)):
        assert head.features == count
        features = torch.randn(5, count, requires_grad=True)
        z, log_q = head(features).rsample_and_log_prob(torch.randn(2, 5, 4))
        (z.square().sum() + log_q.sum()).backward()
        assert (features.grad != 0).all()


def test_a_full_posterior_is_lower_triangular_with_a_positive_diagonal():
    q = FullNormalPosterior(4)(torch.randn(5, 14))
    assert (q.scale_tril.triu(1) == 0).all() and (q.scale_tril.diagonal(dim1=-2, dim2=-1) > 0).all()
    assert (q.scale_tril.tril(-1).flatten(1) != 0).sum() == 5 * 6


FROZEN = {
    "diagonal": (lambda f: DiagonalNormal(f[..., :2], f[..., 2:4]), 4),
    "full": (FullNormalPosterior(2), 5),
    **{kind: (FlowPosterior(2, kind, 2, (8,), context=3), 7) for kind in ("maf", "nsf", "coupling")},
}


@pytest.mark.parametrize("name", FROZEN)
def test_a_frozen_distribution_has_the_same_density_and_gradient_of_z_and_none_of_its_own(name):
    make, size = FROZEN[name]
    features = (0.3 * torch.randn(4, size)).requires_grad_()
    z = torch.randn(4, 2, requires_grad=True)
    q = make(features)
    plain, frozen = q.log_prob(z), q.frozen().log_prob(z)
    torch.testing.assert_close(plain, frozen)
    (expected,) = torch.autograd.grad(plain.sum(), z, retain_graph=True)
    parameters = [features, *getattr(make, "parameters", list)()]
    of_z, *own = torch.autograd.grad(frozen.sum(), [z, *parameters], allow_unused=True)
    torch.testing.assert_close(expected, of_z)
    assert all(gradient is None for gradient in own)
    assert all(p.requires_grad for p in parameters), "what was frozen for a moment trains again"
    assert torch.autograd.grad(q.log_prob(z).sum(), features)[0].abs().sum() > 0
