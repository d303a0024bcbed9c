"""Encoders (example → features) and decoders (latent vector → likelihood parameters)."""

from vae_cli.networks.conditional import LabeledDecoder, LabeledEncoder
from vae_cli.networks.conv import ConvDecoder, ConvEncoder
from vae_cli.networks.conv1d import Conv1dDecoder, Conv1dEncoder
from vae_cli.networks.mlp import GatedMLPDecoder, GatedMLPEncoder, MLPDecoder, MLPEncoder
from vae_cli.networks.resnet import ResNetDecoder, ResNetEncoder

__all__ = [
    "Conv1dDecoder",
    "Conv1dEncoder",
    "ConvDecoder",
    "ConvEncoder",
    "GatedMLPDecoder",
    "GatedMLPEncoder",
    "LabeledDecoder",
    "LabeledEncoder",
    "MLPDecoder",
    "MLPEncoder",
    "ResNetDecoder",
    "ResNetEncoder",
]
