"""Sums over all ranks."""

import math

import torch

from vae_cli.distributed import collectives


def test_a_parameter_has_a_gradient_where_any_process_has_one(monkeypatch):
    """Two processes by hand: the first has no gradient of b and d, the second none of c and d; a third has nothing."""
    messages = []

    def add(values):
        messages.append(values.clone())
        return sum(messages) if len(messages) == 3 else values

    monkeypatch.setattr(collectives, "all_reduce", add)
    monkeypatch.setattr(collectives, "is_connected", lambda: True)

    def parameters(**gradients):
        named = {name: torch.nn.Parameter(torch.zeros(2, dtype=torch.float64)) for name in "abcd"}
        for name, value in gradients.items():
            named[name].grad = torch.full((2,), float(value), dtype=torch.float64)
        return list(named.values())

    sums = torch.tensor([5.0, 7.0])
    collectives.all_reduce_gradients(parameters(a=8, c=4), sums, 0.25)
    collectives.all_reduce_gradients(parameters(a=math.nan, d=math.nan), torch.tensor([math.nan, 1]), 0.0)
    own = parameters(a=4, b=4)
    pooled = collectives.all_reduce_gradients(own, sums, 0.75)
    assert pooled.tolist() == [10, 14] and pooled.dtype == sums.dtype
    assert [None if p.grad is None else p.grad.tolist() for p in own] == [[5, 5], [3, 3], [1, 1], None]
