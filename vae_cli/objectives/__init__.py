"""Objectives: evidence in, a bound and a loss out."""

from vae_cli.objectives.base import Bound, Objective
from vae_cli.objectives.elbo import ELBO

__all__ = ["ELBO", "Bound", "Objective"]
