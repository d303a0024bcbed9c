"""Posteriors q(z|x), priors p(z), likelihoods p(x|z) and the divergences between them."""

from vae_cli.distributions.count_likelihoods import (
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from vae_cli.distributions.counts import GivenTotal, NegativeBinomial, Poisson, ZeroInflated
from vae_cli.distributions.factorized import Factorized, as_latent
from vae_cli.distributions.flows import FlowDistribution
from vae_cli.distributions.kl import analytic_kl, kl_by_dimension
from vae_cli.distributions.latent import LatentDistribution
from vae_cli.distributions.likelihoods import (
    BernoulliLikelihood,
    CategoricalLikelihood,
    ContinuousBernoulliLikelihood,
    DiscretizedLogisticLikelihood,
    DiscretizedLogisticMixtureLikelihood,
    LaplaceLikelihood,
    Likelihood,
    NormalLikelihood,
    StudentTLikelihood,
)
from vae_cli.distributions.mixed import MixedLikelihood
from vae_cli.distributions.mixture import Mixture
from vae_cli.distributions.normals import DiagonalNormal, FullNormal
from vae_cli.distributions.pixels import ContinuousBernoulli, DiscretizedLogistic, DiscretizedLogisticMixture, Levels
from vae_cli.distributions.posteriors import DiagonalNormalPosterior, FlowPosterior, FullNormalPosterior, Posterior
from vae_cli.distributions.priors import (
    FlowPrior,
    LearnedNormalPrior,
    MixtureOfNormalsPrior,
    Prior,
    StandardNormalPrior,
    VampPrior,
)

__all__ = [
    "BernoulliLikelihood",
    "CategoricalLikelihood",
    "ContinuousBernoulli",
    "ContinuousBernoulliLikelihood",
    "CountLikelihood",
    "DiagonalNormal",
    "DiagonalNormalPosterior",
    "DiscretizedLogistic",
    "DiscretizedLogisticLikelihood",
    "DiscretizedLogisticMixture",
    "DiscretizedLogisticMixtureLikelihood",
    "Factorized",
    "FlowDistribution",
    "FlowPosterior",
    "FlowPrior",
    "FullNormal",
    "FullNormalPosterior",
    "GivenTotal",
    "LaplaceLikelihood",
    "LatentDistribution",
    "LearnedNormalPrior",
    "Levels",
    "Likelihood",
    "MixedLikelihood",
    "Mixture",
    "MixtureOfNormalsPrior",
    "NegativeBinomial",
    "NegativeBinomialLikelihood",
    "NormalLikelihood",
    "Poisson",
    "PoissonLikelihood",
    "Posterior",
    "Prior",
    "StandardNormalPrior",
    "StudentTLikelihood",
    "VampPrior",
    "ZeroInflated",
    "ZeroInflatedNegativeBinomialLikelihood",
    "analytic_kl",
    "as_latent",
    "kl_by_dimension",
]
