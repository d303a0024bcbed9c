"""Distributions to test, and grids to integrate their densities over."""

import numpy as np
import torch

from vae_cli.distributions import (
    DiagonalNormal,
    FullNormal,
)


def random_normals(dim=3, batch=(4,), dtype=torch.float64):
    diagonal = DiagonalNormal(torch.randn(*batch, dim, dtype=dtype), 0.5 * torch.randn(*batch, dim, dtype=dtype))
    below = torch.randn(*batch, dim, dim, dtype=dtype).tril(-1)
    full = FullNormal(
        torch.randn(*batch, dim, dtype=dtype), below + torch.diag_embed(torch.rand(*batch, dim, dtype=dtype) + 0.3)
    )
    return diagonal, full


F64 = torch.float64


def infer(x):
    """A posterior that depends on the image."""
    mean = x.flatten(1).mean(1)
    return DiagonalNormal(torch.stack([4 * mean - 2, 1 - mean], 1), torch.stack([mean - 1, -mean], 1))


def shaken(module):
    """With parameters away from where they start."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double()


def grid(half_width, points=401):
    line = torch.linspace(-half_width, half_width, points, dtype=F64)
    return torch.stack(torch.meshgrid(line, line, indexing="ij"), -1), float((line[1] - line[0]) ** 2)


FAR = [0.0, 1.0, 30.0, 1e3, 1e6]


def close(actual, expected):
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=1e-5, atol=1e-4)
