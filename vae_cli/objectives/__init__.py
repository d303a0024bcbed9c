"""Objectives: evidence in, a bound and a loss out."""

from vae_cli.objectives.base import Bound, IncompatibleError, Objective, Sums, frozen
from vae_cli.objectives.covariance import DIPVAE
from vae_cli.objectives.density_ratio import FactorVAE
from vae_cli.objectives.elbo import ELBO
from vae_cli.objectives.importance import IWAE
from vae_cli.objectives.mmd import InfoVAE, mmd
from vae_cli.objectives.total_correlation import BetaTC

__all__ = [
    "DIPVAE",
    "ELBO",
    "IWAE",
    "BetaTC",
    "Bound",
    "FactorVAE",
    "IncompatibleError",
    "InfoVAE",
    "Objective",
    "Sums",
    "frozen",
    "mmd",
]
