"""What other parts of the bound gain over the plain model: log p(x) of MNIST's test images, in nats per example; and
the Fréchet distance of samples from the prior.

Every line is trained for the same epochs from several seeds, and scored by the importance-weighted estimate on the
same test images with the same noise. The Fréchet distance is that of `vae-evaluate generation=true`, of as many samples
as there are test images. A run directory that is there already is not trained again.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import torch

from vae_cli.build import parts, trained
from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.data import Split
from vae_cli.evaluation.bounds import score
from vae_cli.runs import checkpoint

LINES = {
    "plain": "",
    "iwae": "objective=iwae mc_samples=5",
    "vamp-full": "prior=vampprior posterior=full_normal",
    "mixture-flow-stl": "prior=mixture_of_normals posterior=flow objective.estimator=stl mc_samples=5",
    "flow-dreg": "prior=flow objective=iwae objective.estimator=dreg mc_samples=5",
    "vamp-iwae-flow": "prior=vampprior objective=iwae mc_samples=5 posterior=flow",
}


def trained_run(name: str, seed: int, epochs: int, directory: Path) -> Path:
    run = directory / f"{name}-{seed}"
    if not (run / "checkpoints" / "best.safetensors").exists():
        common = ["dataset=mnist", "latent_dim=16", f"epochs={epochs}", f"seed={seed}", "sample_every=0"]
        call = [sys.executable, "-m", "vae_cli", "train", *common, *LINES[name].split(), f"hydra.run.dir={run}"]
        subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    return run


def scored(run: Path, test: Split, images: int, draws: int) -> torch.Tensor:
    """log p(x) of each image."""
    model = trained.load(checkpoint.find(run), "cpu").model
    return score(model, test, [draws], seed=0, count=images).log_likelihood[0]


def frechet_distance(run: Path) -> float:
    """Of samples from the prior and all test images."""
    output = run / "generation.json"
    given = [f"checkpoint={run}", f"output={output}", "device=cpu", "generation=true", "samplers=[prior]"]
    with contextlib.redirect_stdout(sys.stderr):
        evaluate.run(compose.compose("evaluate", [*given, "num_importance_samples=1"]))
    return json.loads(output.read_text())["generation"]["samples"]["prior"]["frechet_distance"]["value"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--directory", type=Path, default=Path("outputs/parts"))
    given = parser.parse_args()
    test = parts.dataset(compose.compose("train", ["dataset=mnist"])).splits().test
    plain: dict[int, torch.Tensor] = {}
    for name in given.lines:
        for seed in given.seeds:
            run = trained_run(name, seed, given.epochs, given.directory)
            values = scored(run, test, given.images, given.draws)
            plain.setdefault(seed, values)
            gain = values - plain[seed]
            found = {"log_likelihood": float(values.mean()), "gain": float(gain.mean())}
            error = {"gain_stderr": float(gain.std() / len(gain) ** 0.5), "frechet_distance": frechet_distance(run)}
            print(json.dumps({"line": name, "settings": LINES[name], "seed": seed} | found | error), flush=True)


if __name__ == "__main__":
    main()
