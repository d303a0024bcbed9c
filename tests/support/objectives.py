"""Batches, noise and gradients of the linear-Gaussian model; an objective with a module of its own."""

from dataclasses import replace

import torch
from torch import nn

from tests.support.linear_gaussian import SHAPE, D
from vae_cli.objectives import ELBO

F64 = torch.float64


def images(count=4):
    return torch.rand(count, *SHAPE, dtype=F64)


def noise(k, count=4):
    return torch.randn(k, count, D, dtype=F64)


def encoder_gradient(objective, model, x, drawn):
    model.zero_grad()
    objective(model, (x, None), drawn, 0).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.encoder.parameters()])


class Balanced(ELBO):
    """The ELBO plus a learned number that follows its mean; it has Adam by default."""

    def __init__(self, mc_samples=1):
        super().__init__(mc_samples=mc_samples)
        self.module = nn.Linear(1, 1, bias=False)

    def __call__(self, model, batch, noise, step):
        bound = super().__call__(model, batch, noise, step)
        distance = self.module.weight.squeeze() - bound.elbo.detach().mean()
        return replace(bound, module_loss=distance.square())
