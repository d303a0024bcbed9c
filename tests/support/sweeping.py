"""Helpers for tests of sweeps: a sweep in this process, a training that takes no time, and the files of a sweep."""

import csv
import json
import math
from pathlib import Path

import torch

from vae_cli import cli
from vae_cli.config.command_line import read_command_line
from vae_cli.runs import checkpoint
from vae_cli.sweeps.launch import launch_sweep

SMALL = ["epochs=2", "report=false", "device=cpu", "sample_every=0", "encoder.hidden=[8]", "decoder.hidden=[8]"]


def sweep(*argv, train=cli._train_job):
    """Run a sweep; return its exit status."""
    return launch_sweep(read_command_line(["-m", *argv]), train)


class FakeTraining:
    """A training that only writes its files. Its ELBO is −(latent_dim − 6)² − log₁₀(lr / 10⁻³)², from below."""

    def __init__(self):
        self.settings = []

    def __call__(self, settings, directory, overridden, command, on_metrics=None):
        from vae_cli.training import signals

        self.settings.append(settings)
        self.begin(settings)
        score = -((settings["latent_dim"] - 6) ** 2) - math.log10(settings["optimizer"]["lr"] / 1e-3) ** 2
        status, epoch = "completed", 0
        for epoch in range(1, (100 if settings["epochs"] == "auto" else settings["epochs"]) + 1):
            if on_metrics is not None:
                on_metrics(epoch, "validation", {"elbo": score - 1 / epoch})
            if signals._requested is not None:
                status = "interrupted"
                break
        line = {"epoch": 1, "split": "validation", "elbo": score, "kl": settings["latent_dim"]}
        (directory / "metrics.jsonl").write_text(json.dumps(line))
        numbers = {"validation": {"elbo": score, "kl": settings["latent_dim"]}, "test": {"elbo": score}}
        (directory / "summary.json").write_text(json.dumps({"status": status, "epochs": epoch, **numbers}))
        return 0 if status == "completed" else 143

    def begin(self, settings):
        """Raise nothing; a subclass raises the errors of its training here."""


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


def table(directory="s"):
    """Return the rows of sweep.csv."""
    with (Path(directory) / "sweep.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def statuses(directory="s"):
    return [row["status"] for row in table(directory)]


def assert_same(one, other):
    """Assert that two run directories hold the same weights and numbers."""
    (weights, numbers), (others, same) = _outcome(one), _outcome(other)
    assert all(torch.equal(weights[key], others[key]) for key in weights) and numbers == same


def _outcome(directory):
    weights = checkpoint.load(Path(directory) / "checkpoints/last.safetensors")["model"]
    lines = [json.loads(line) for line in (Path(directory) / "metrics.jsonl").read_text().splitlines()]
    return weights, [{k: v for k, v in line.items() if k not in ("seconds", "images_per_second")} for line in lines]
