"""vae-encode: the posterior's mean, standard deviation and a draw for every image."""

import numpy as np
import torch

from tests.support.image_commands import WIDE, encoded
from vae_cli.build import parts, trained
from vae_cli.config import compose
from vae_cli.training.run import run as train


def test_codes_are_the_posteriors_in_input_order(run, tmp_path):
    codes = encoded(run, tmp_path)
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.safetensors", "cpu")
    split = parts.dataset(settings).splits().test
    with torch.no_grad():
        q = model.encode(split.images.float() / 255)
    np.testing.assert_allclose(codes["mean"], q.mean, atol=1e-5)
    np.testing.assert_allclose(codes["std"], q.stddev, rtol=1e-4)
    np.testing.assert_array_equal(codes["label"], split.labels)
    normal = (codes["sample"] - codes["mean"]) / codes["std"]
    assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.1


def test_neither_chunks_nor_limits_change_a_code(run, tmp_path):
    whole, few = encoded(run, tmp_path, "input=train"), encoded(run, tmp_path, "input=train", "limit=3")
    for name in ("mean", "std", "sample"):
        np.testing.assert_allclose(whole[name][:3], few[name], atol=1e-5)
    assert len(whole["mean"]) == 1417
    assert not np.allclose(few["sample"], encoded(run, tmp_path, "input=train", "limit=3", "seed=1")["sample"])


def test_a_flows_moments_are_those_of_its_draws(tmp_path):
    assert train(compose.compose("train", [*WIDE, "posterior=flow", "epochs=2"]), tmp_path / "run") == 0
    codes = encoded(tmp_path / "run", tmp_path, "limit=20")
    model, _, settings, _ = trained.load(tmp_path / "run" / "checkpoints" / "best.safetensors", "cpu")
    x = parts.dataset(settings).splits().test.images[:20].float() / 255
    with torch.no_grad():
        z, _ = model.encode(x).rsample_and_log_prob(torch.randn(20_000, 20, 8))
    error = 5 * codes["std"] / 200**0.5 + 1e-3
    assert (np.abs(codes["mean"] - z.mean(0).numpy()) < error).all()
    np.testing.assert_allclose(codes["std"], z.std(0), rtol=0.35)
