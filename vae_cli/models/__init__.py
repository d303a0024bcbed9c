"""Variational autoencoders."""

from vae_cli.models.vae import VAE, Evidence

__all__ = ["VAE", "Evidence"]
