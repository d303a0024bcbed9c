"""Posteriors q(z|x), priors p(z), likelihoods p(x|z) and the divergences between them."""

from vae_cli.distributions.kl import analytic_kl
from vae_cli.distributions.likelihoods import (
    BernoulliLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    Likelihood,
    NormalLikelihood,
)
from vae_cli.distributions.normals import DiagonalNormal, FullNormal
from vae_cli.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic
from vae_cli.distributions.posteriors import DiagonalNormalPosterior, FullNormalPosterior, Posterior
from vae_cli.distributions.priors import Prior, StandardNormalPrior

__all__ = [
    "BernoulliLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "DiagonalNormal",
    "DiagonalNormalPosterior",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "FullNormal",
    "FullNormalPosterior",
    "Likelihood",
    "NormalLikelihood",
    "Posterior",
    "Prior",
    "StandardNormalPrior",
    "analytic_kl",
]
