"""The normal distributions of a level."""

import torch
from torch.distributions import AffineTransform, Normal, TransformedDistribution

from vae_cli.distributions import DiagonalNormalPosterior
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.levels import level_log_scale, normal, relative_normal


def test_a_relative_posterior_is_in_units_of_the_prior():
    p, q = (DiagonalNormalPosterior(2)(torch.randn(3, 4)) for _ in range(2))
    units = TransformedDistribution(Normal(q.loc, q.scale), AffineTransform(p.loc, p.scale))
    z = torch.randn(3, 2)
    torch.testing.assert_close(relative_normal(q, p).log_prob(z), units.log_prob(z).sum(-1))


def test_means_and_log_scales_stand_side_by_side_in_the_channels_of_an_output():
    output = 10 * torch.randn(6, 4, 3, 2)
    q = normal(output, (2, 3))
    torch.testing.assert_close(q.loc, output[:, :2].reshape(2, 3, 12), rtol=0, atol=0)
    torch.testing.assert_close(q.log_scale, level_log_scale(output[:, 2:]).reshape(2, 3, 12), rtol=0, atol=0)


def test_densities_are_in_float32_or_better_whatever_the_networks_multiply_in():
    for dtype, expected in ((torch.bfloat16, torch.float32), (torch.float32,) * 2, (torch.float64,) * 2):
        q = normal(torch.zeros(3, 4, dtype=dtype), (3,))
        assert q.loc.dtype == q.scale.dtype == expected


def test_the_scale_of_a_level_is_bounded_above_and_never_stops_a_gradient():
    raw = torch.cat([-torch.logspace(9, -3, 200), torch.logspace(-3, 9, 200)]).requires_grad_()
    log_scale = level_log_scale(raw)
    log_scale.sum().backward()
    below = raw < 2
    torch.testing.assert_close(log_scale[below], bounded_log_scale(raw[below]), rtol=0, atol=0)
    assert (log_scale.diff() >= 0).all() and float(log_scale.detach().max()) < 3 and (raw.grad > 0).all()
    near = torch.tensor([2 - 1e-4, 2 + 1e-4], dtype=torch.float64, requires_grad=True)
    (slopes,) = torch.autograd.grad(level_log_scale(near).sum(), near)
    torch.testing.assert_close(slopes, torch.ones(2, dtype=torch.float64), atol=1e-3, rtol=0)
