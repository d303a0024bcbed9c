"""Objectives: evidence in, a bound and a loss out."""

from vae_cli.objectives.base import Bound, IncompatibleError, Objective, Sums
from vae_cli.objectives.elbo import ELBO
from vae_cli.objectives.importance import IWAE
from vae_cli.objectives.mmd import InfoVAE, mmd
from vae_cli.objectives.total_correlation import BetaTC

__all__ = ["ELBO", "IWAE", "BetaTC", "Bound", "IncompatibleError", "InfoVAE", "Objective", "Sums", "mmd"]
