"""Models to draw images of, and vae-sample as tests call it."""

import numpy as np
import torch

from vae_cli.build import parts, trained
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.data import Images, Split
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.generation.samplers import CHUNK
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.training.run import run as train

SHAPE = (1, 3, 4)

NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]", "device=cpu", "report=false"]


def model_of(posterior, prior):
    dim = posterior.latent_dim
    encoder, decoder = MLPEncoder(SHAPE, posterior.features, hidden=[8]), MLPDecoder(dim, SHAPE, hidden=[8])
    return VAE(encoder, decoder, posterior, prior, NormalLikelihood(SHAPE, 0.3)).eval()


def run_of(tmp_path_factory, *settings):
    directory = tmp_path_factory.mktemp("run")
    train(compose.compose("train", ["epochs=2", "latent_dim=2", *NARROW, *settings]), directory)
    return directory


def drawn(run, tmp_path, *settings):
    output = tmp_path / "out.npz"
    sample.run(compose.compose("sample", [f"checkpoint={run}", f"output={output}", "format=npz", *settings]))
    with np.load(output) as archive:
        return dict(archive)


def used_and_test_images(run):
    used = trained.load(run / "checkpoints" / "best.safetensors", "cpu")
    test = parts.dataset(used.settings).splits().test
    return used.model.requires_grad_(False), test.images / test.scale, test.labels


def close(actual, expected):
    torch.testing.assert_close(torch.as_tensor(actual), expected.detach(), atol=1e-5, rtol=1e-5)


def toy(classes=0):
    """A model of two latent dimensions, and 300 images of three labels."""
    torch.manual_seed(0)
    model = model_of(DiagonalNormalPosterior(2), StandardNormalPrior(2))
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 3
    values = (rng.random((300, *SHAPE)) * 0.3 + labels[:, None, None, None] * 0.3).astype(np.float32)
    return model, Split.of(Images(values, labels), 1.0)


def many(sampler, chunks=150):
    return torch.cat([sampler.chunk(CHUNK * number) for number in range(chunks)]).double()
