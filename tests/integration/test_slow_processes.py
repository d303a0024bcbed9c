"""Several processes as torchrun starts them: every kind of part, real MNIST, and GPUs where there are two."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.support.torchrun import assert_same_to_rounding, together
from vae_cli.config import compose
from vae_cli.training.run import run as train

pytestmark = pytest.mark.slow
needs_mnist = pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="VAE_DATA_DIR names no directory with MNIST")
needs_gpus = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two CUDA GPUs here")

SMALL = ["report=false", "sample_every=0"]
NARROW = ["encoder.hidden=[32]", "decoder.hidden=[32]"]


def by_torchrun(count, cwd, *overrides):
    call = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={count}", "-m", "vae_cli", "train"]
    done = subprocess.run([*call, *overrides, "hydra.run.dir=run"], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads((cwd / "run" / "summary.json").read_text())


@pytest.mark.parametrize(
    "parts",
    [
        "objective=iwae mc_samples=5 dataset.binarize=dynamic ema_decay=0.9",
        "objective=dreg mc_samples=4 posterior=flow dataset.binarize=static clip_grad_norm=5",
        "posterior=full_normal prior=mixture_of_normals scheduler=cosine scheduler.warmup_epochs=1",
        "prior=vampprior conditional=true objective.estimator=stl dataset.binarize=dynamic early_stopping=1",
        "prior=flow likelihood=normal likelihood.scale=per_pixel optimizer=adamw",
        "likelihood=normal likelihood.scale=residual",
        "encoder=conv decoder=conv encoder.channels=[4,8] decoder.channels=[8,4] dataset.binarize=dynamic",
        "model=ladder model.latents=[4,2] model.widths=[16,8] prior=vampprior prior.components=5 mc_samples=2",
        "model=top_down model.channels=[8,16] model.latents=[1,3] model.blocks=[2,1] objective=hierarchy",
        "objective.beta=4 objective.beta_schedule=cyclical objective.warmup_epochs=2 optimizer=rmsprop",
    ],
)
def test_three_processes_train_every_kind_of_part_as_one_does(parts, tmp_path):
    of_flat = ["latent_dim=3", *([] if "conv" in parts else NARROW)]
    settings = [*SMALL, *parts.split(), "epochs=3", "device=cpu", *([] if "model=" in parts else of_flat)]
    assert train(compose.compose("train", [*settings, "batch_size=150"]), tmp_path / "alone") == 0
    statuses, _, complaints = together(3, tmp_path, *settings, "batch_size=50", "hydra.run.dir=run", limit=300)
    assert statuses == [0, 0, 0] and not complaints
    # Adam divides a gradient by its own size, so that of a weight with hardly any the rounding is left.
    assert_same_to_rounding(tmp_path / "alone", tmp_path / "run", weights=2e-3, nats=0.02)


@needs_mnist
def test_mnist_by_three_processes_is_mnist_by_one(tmp_path):
    settings = ["dataset=mnist", *SMALL, "latent_dim=3", "epochs=1", "device=cpu", "mc_samples=2"]
    settings += ["optimizer=sgd", "optimizer.lr=0.0001"]  # with which a rounding stays one
    assert train(compose.compose("train", [*settings, "batch_size=384"]), tmp_path / "alone") == 0
    summary = by_torchrun(3, tmp_path, *settings, "batch_size=128")
    assert summary["processes"] == 3
    assert_same_to_rounding(tmp_path / "alone", tmp_path / "run")


def test_compiled_networks_are_trained_by_several_processes_too(tmp_path):
    elbo = by_torchrun(
        2, tmp_path, *SMALL, "latent_dim=3", *NARROW, "epochs=2", "device=cpu", "compile=true", "batch_size=64"
    )
    one = [*SMALL, "latent_dim=3", *NARROW, "epochs=2", "device=cpu", "batch_size=128"]
    assert train(compose.compose("train", one), tmp_path / "alone") == 0
    alone = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert abs(elbo["test"]["elbo"] - alone["test"]["elbo"]) < 0.1


@needs_gpus
@pytest.mark.parametrize(
    "extra", [[], ["precision=bfloat16"], ["compile=true"], ["ema_decay=0.9", "objective=iwae", "mc_samples=5"]]
)
def test_two_gpus_train_as_one_does(extra, tmp_path):
    settings = [*SMALL, "latent_dim=3", "epochs=5", "dataset.binarize=dynamic", "device=cuda", *extra]
    assert train(compose.compose("train", [*settings, "batch_size=128"]), tmp_path / "alone") == 0
    summary = by_torchrun(2, tmp_path, *settings, "batch_size=64")
    alone = json.loads((tmp_path / "alone" / "summary.json").read_text())
    assert abs(summary["test"]["elbo"] - alone["test"]["elbo"]) < 0.5
    call = [sys.executable, "-m", "vae_cli", "train", f"resume={tmp_path / 'run'}", "epochs=6", "device=cpu"]
    assert subprocess.run(call, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}).returncode == 0
