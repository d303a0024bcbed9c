"""Variational autoencoders: of one level of latent variables, and hierarchies."""

from vae_cli.models.base import Model
from vae_cli.models.evidence import Evidence, Level
from vae_cli.models.hierarchy import Hierarchy
from vae_cli.models.ladder import Ladder
from vae_cli.models.top_down import TopDown
from vae_cli.models.vae import VAE

__all__ = ["VAE", "Evidence", "Hierarchy", "Ladder", "Level", "Model", "TopDown"]
