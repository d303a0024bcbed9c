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


def test_a_tensor_within_the_bounds_and_one_beyond_have_the_same_values_and_gradients_where_both_are_inside():
    raw = torch.tensor([-6.9, -1.0, 0.0, 3.9], requires_grad=True)
    together = torch.cat([raw, torch.tensor([-9.0, 30.0])])
    alone, beside = bounded_log_scale(raw), bounded_log_scale(together)[:4]
    assert torch.equal(alone, beside) and alone.data_ptr() != raw.data_ptr()
    weights = torch.arange(1.0, 5.0)
    grads = [torch.autograd.grad((value * weights).sum(), raw)[0] for value in (alone, beside)]
    assert torch.equal(grads[0], weights) and torch.equal(grads[1], weights)
    assert bounded_log_scale(torch.full((2,), torch.nan)).isnan().all() and bounded_log_scale(raw[:0]).shape == (0,)
