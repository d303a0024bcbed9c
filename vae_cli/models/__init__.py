"""Variational autoencoders."""

from vae_cli.models.evidence import Evidence
from vae_cli.models.vae import VAE

__all__ = ["VAE", "Evidence"]
