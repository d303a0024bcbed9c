"""Log-scales stay finite without stopping a gradient."""

import torch

from vae_cli.distributions.bounded import bounded_log_scale


def test_bounded_log_scale_is_monotone_finite_and_never_stops_a_gradient():
    raw = torch.cat([-torch.logspace(9, -3, 200), torch.logspace(-3, 9, 200)]).requires_grad_()
    bounded = bounded_log_scale(raw)
    bounded.sum().backward()
    inside = (raw > -7) & (raw < 4)
    torch.testing.assert_close(bounded[inside], raw[inside])
    assert (bounded.diff() >= 0).all() and (raw.grad > 0).all()
    assert bounded.exp().square().isfinite().all() and (bounded.exp() > 0).all()
