"""Tests that take minutes: real MNIST, and compiled networks. Run by `make test-slow`."""

import json
import os
import subprocess
import sys

import pytest
import torch

from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

pytestmark = pytest.mark.slow
needs_mnist = pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="VAE_DATA_DIR names no directory with MNIST")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU here")


def trained(cwd, *overrides):
    call = [sys.executable, "-m", "vae_cli", "train", *overrides, "hydra.run.dir=run"]
    done = subprocess.run(call, cwd=cwd, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    return json.loads((cwd / "run" / "summary.json").read_text())["test"]["elbo"]


@needs_mnist
def test_the_main_job_on_mnist_ends_above_minus_105_nats(tmp_path):
    assert trained(tmp_path, "dataset=mnist", "latent_dim=16", "epochs=20", "device=cpu") > -105


@needs_mnist
def test_conv_beats_mlp_on_mnist_at_equal_epochs(tmp_path):
    elbos = {}
    for name in ("mlp", "conv"):
        (tmp_path / name).mkdir()
        elbos[name] = trained(tmp_path / name, "dataset=mnist", "epochs=3", f"encoder={name}", f"decoder={name}")
    assert elbos["conv"] > elbos["mlp"]


@pytest.mark.parametrize("network", ["mlp", "conv"])
def test_compiled_networks_train_to_the_same_weights_up_to_rounding(network, tmp_path):
    weights, elbos = {}, {}
    of_network = ["epochs=2", "batch_size=128", f"encoder={network}", f"decoder={network}"]
    for compiled in ("false", "true"):
        folder = tmp_path / compiled
        folder.mkdir()
        elbos[compiled] = trained(folder, *of_network, f"compile={compiled}")
        weights[compiled] = checkpoint.load(folder / "run" / "checkpoints" / "last.safetensors")["model"]
    assert abs(elbos["true"] - elbos["false"]) < 0.05
    assert weights["true"].keys() == weights["false"].keys()
    for name, value in weights["true"].items():
        torch.testing.assert_close(value, weights["false"][name], rtol=1e-2, atol=1e-2)


PARTS = (
    "objective.warmup_epochs=1 objective.estimator=stl optimizer=muon dataset.binarize=dynamic mc_samples=2",
    "prior=vampprior posterior=flow objective=iwae mc_samples=3 likelihood=discretized_logistic_mixture",
    "prior=flow posterior=full_normal objective=dreg mc_samples=3 likelihood=categorical conditional=true",
    "objective.beta_schedule=cyclical objective.warmup_epochs=1 objective.free_bits=0.1 posterior=full_normal",
    "objective=factor_vae mc_samples=2 posterior=flow ema_decay=0.9 clip_grad_norm=100",
    "objective=dip_vae objective.kind=ii posterior=full_normal",
    "objective.capacity=20 objective.beta=3 objective.warmup_epochs=1 conditional=true encoder=conv",
    "prior=mixture_of_normals posterior=flow posterior.kind=maf objective.estimator=stl likelihood=normal",
    "prior=learned_normal objective=beta_tc likelihood=laplace encoder=gated_mlp decoder=gated_mlp conditional=true",
    "model=ladder model.latents=[4,2] model.widths=[16,8] prior=vampprior objective=stl mc_samples=2",
    "model=top_down model.channels=[8,16] model.latents=[1,3] model.blocks=[2,1] objective=dreg mc_samples=2",
    "prior=vampprior objective=info_vae likelihood=continuous_bernoulli encoder=conv decoder=conv conditional=true",
)


@pytest.mark.parametrize("parts", PARTS)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_compiled_networks_give_every_kind_of_part_the_same_numbers(parts, precision, tmp_path):
    elbos = {}
    for compiled in ("false", "true"):
        folder = tmp_path / compiled
        folder.mkdir()
        settings = [*parts.split(), "epochs=2", "batch_size=128", f"precision={precision}", f"compile={compiled}"]
        elbos[compiled] = trained(folder, *settings)
    assert elbos["true"] == pytest.approx(elbos["false"], rel=1e-3 if precision == "float32" else 0.02)


@needs_gpu
@pytest.mark.parametrize(
    "extra",
    [
        [],
        ["precision=bfloat16"],
        ["compile=true"],
        ["ema_decay=0.9", "clip_grad_norm=10"],
        ["conditional=true", "prior=vampprior", "posterior=flow", "objective=dreg", "mc_samples=3"],
        ["prior=flow", "objective=info_vae", "posterior=full_normal"],
    ],
)
def test_a_gpu_trains_as_the_cpu_does_and_its_checkpoint_opens_without_one(extra, tmp_path):
    elbos = {}
    for device in ("cpu", "cuda"):
        (tmp_path / device).mkdir()
        elbos[device] = trained(tmp_path / device, "epochs=5", f"device={device}", "dataset.binarize=dynamic", *extra)
    assert abs(elbos["cuda"] - elbos["cpu"]) < 1
    call = [sys.executable, "-m", "vae_cli", "sample", f"checkpoint={tmp_path / 'cuda' / 'run'}", "device=cpu"]
    assert subprocess.run(call, cwd=tmp_path, env=os.environ | {"CUDA_VISIBLE_DEVICES": ""}).returncode == 0


@needs_gpu
def test_the_loop_never_waits_for_the_gpu_within_an_epoch(monkeypatch):
    """Steps run under CUDA's own detector of synchronizations."""
    from vae_cli.build import parts
    from vae_cli.config import compose
    from vae_cli.training import loop, state

    settings = compose.compose(
        "train", ["dataset.binarize=dynamic", "device=cuda", "clip_grad_norm=10", "ema_decay=0.9"]
    )
    data = parts.dataset(settings).splits()
    training = state.TrainingState(parts.with_choices(settings, data.facts), data, torch.device("cuda"))
    batches = training.batches.epoch(0)
    for warm in range(8):
        torch.cuda.set_sync_debug_mode("error" if warm > 2 else "default")
        try:
            number, batch = next(batches)
            drawn = training.noise(len(batch[0]), 0, number)
            loss, sums = training.loss(batch, drawn)
            loss.backward()
            loop.step(training, loss, sums)
        finally:
            torch.cuda.set_sync_debug_mode("default")


def test_compiling_without_a_compiler_is_one_sentence(tmp_path):
    call = [
        sys.executable,
        "-m",
        "vae_cli",
        "train",
        "compile=true",
        "report=false",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    own = os.environ | {"CXX": "/nonexistent", "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([*call, "device=cpu"], env=own, capture_output=True, text=True)
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert line.startswith("vae-train: error: compile=true fails here (InvalidCxxCompiler: No working C++ compiler")
    assert line.endswith("): install a C++ compiler such as g++; compile=false trains without")
    again = [*call[:4], "compile=false", f"resume={tmp_path / 'run'}", "epochs=1"]
    assert subprocess.run(again, env=own, capture_output=True).returncode == 0


def test_a_compiled_run_is_resumed_bit_for_bit(tmp_path):
    from vae_cli.config import compose

    line = ["compile=true", "report=false", "device=cpu", "objective.warmup_epochs=3", "latent_dim=3"]
    for name, epochs in (("whole", 4), ("parts", 2)):
        train(compose.compose("train", [*line, f"epochs={epochs}"]), tmp_path / name)
    parts = tmp_path / "parts"
    train(compose.compose("train", [f"resume={parts}", "epochs=4"]), parts, frozenset({"resume", "epochs"}))
    paths = [tmp_path / name / "checkpoints" / "last.safetensors" for name in ("whole", "parts")]
    weights = [checkpoint.load(path)["model"] for path in paths]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
