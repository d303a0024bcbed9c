"""Divergences agree with torch, quadrature and Monte Carlo."""

import math

import torch
from torch.distributions import MultivariateNormal, Normal, kl_divergence

from tests.support.densities import random_normals
from vae_cli.distributions import (
    StandardNormalPrior,
    analytic_kl,
)


def test_analytic_kl_agrees_with_torch_and_with_monte_carlo():
    prior = StandardNormalPrior(3).double()(lambda x: None)
    standard = MultivariateNormal(torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    diagonal, full = random_normals()
    for q, theirs in (
        (diagonal, MultivariateNormal(diagonal.loc, scale_tril=torch.diag_embed(diagonal.scale))),
        (full, MultivariateNormal(full.loc, scale_tril=full.scale_tril)),
    ):
        closed = analytic_kl(q, prior)
        torch.testing.assert_close(closed, kl_divergence(theirs, standard), rtol=1e-12, atol=1e-12)
        z, log_q = q.rsample_and_log_prob(torch.randn(100_000, 4, 3, dtype=torch.float64))
        terms = log_q - prior.log_prob(z)
        error = terms.std(0) / math.sqrt(len(terms))
        assert ((terms.mean(0) - closed).abs() < 5 * error).all()


def test_analytic_kl_is_the_integral_of_its_definition():
    """∫ q (log q − log p) over a grid in two dimensions."""
    line = torch.linspace(-14, 14, 701, dtype=torch.float64)
    z = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).unsqueeze(-2)
    p = random_normals(dim=2, batch=(1,))[0]
    for q in random_normals(dim=2, batch=(1,)):
        log_q = q.log_prob(z)
        integral = (log_q.exp() * (log_q - p.log_prob(z))).sum() * (line[1] - line[0]) ** 2
        torch.testing.assert_close(analytic_kl(q, p).squeeze(), integral, rtol=1e-8, atol=1e-8)


def test_kl_between_two_diagonal_normals_agrees_with_torch():
    q, p = random_normals()[0], random_normals()[0]
    expected = kl_divergence(Normal(q.loc, q.scale), Normal(p.loc, p.scale)).sum(-1)
    torch.testing.assert_close(analytic_kl(q, p), expected, rtol=1e-12, atol=1e-12)


def test_there_is_no_closed_form_where_none_is_registered():
    assert analytic_kl(random_normals()[0], torch.distributions.Gumbel(torch.zeros(3), torch.ones(3))) is None
