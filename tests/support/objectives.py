"""Batches, noise and gradients of the linear-Gaussian model."""

import torch

from tests.support.linear_gaussian import SHAPE, D

F64 = torch.float64


def images(count=4):
    return torch.rand(count, *SHAPE, dtype=F64)


def noise(k, count=4):
    return torch.randn(k, count, D, dtype=F64)


def encoder_gradient(objective, model, x, drawn):
    model.zero_grad()
    objective(model, (x, None), drawn, 0).loss.backward()
    return torch.cat([p.grad.flatten() for p in model.encoder.parameters()])
