"""The trade-off of disentanglement on `dataset=sprites`: MIG and other scores against the reconstruction, over the
weight of each objective.

Every line is trained for the same epochs from several seeds, and scored by `vae-evaluate disentanglement=true`. Prints
a row for each, and draws a picture. A run that is scored already is not trained again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import altair as alt

from vae_cli.reporting import charts

LINES = {
    **{f"vae{beta}": f"objective.beta={beta}" for beta in (1, 2, 4, 8)},
    **{f"tc{beta}": f"objective=beta_tc objective.beta={beta}" for beta in (2, 4, 8)},
    **{f"factor{gamma}": f"objective=factor_vae objective.gamma={gamma}" for gamma in (10, 20, 40)},
}
FAMILIES = {"vae": "β-VAE", "tc": "β-TC", "factor": "FactorVAE"}
SCORES = ("mig", "dci_disentanglement", "dci_informativeness", "factor_vae_score", "modularity", "sap")
NETWORKS = ("encoder.hidden=[512,512]", "decoder.hidden=[512,512]", "latent_dim=10")

Row = dict[str, Any]


def scored_run(name: str, seed: int, epochs: int, directory: Path) -> Row:
    """Return the numbers of a line's run, trained and scored if it is not yet."""
    run = directory / f"{name}-seed{seed}"
    if not (run / "evaluation.json").exists():
        own = ["dataset=sprites", *NETWORKS, f"epochs={epochs}", f"seed={seed}", "report=false", *LINES[name].split()]
        _call("train", *own, f"hydra.run.dir={run}")
        _call("evaluate", f"checkpoint={run}", "disentanglement=true", "num_importance_samples=100")
    found = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    numbers = {key: found[key]["value"] for key in ("elbo", "reconstruction", "kl", "active_units")}
    numbers |= {key: found["disentanglement"][key]["value"] for key in SCORES}
    return {"line": name, "seed": seed} | numbers


def _call(command: str, *settings: str) -> None:
    subprocess.run([sys.executable, "-m", "vae_cli", command, *settings], check=True, stdout=subprocess.DEVNULL)


def picture(rows: list[Row]) -> alt.Chart:
    """Draw MIG against the reconstruction: a point for each run, with its weight, in the color of its objective."""
    shown = []
    for row in rows:
        family = row["line"].rstrip("0123456789")
        weight = row["line"].removeprefix(family)
        shown.append({**row, "objective": FAMILIES[family], "weight": weight})
    names = list(FAMILIES.values())
    base = alt.Chart(charts.values_of(shown)).encode(
        x=alt.X("reconstruction:Q", title="reconstruction, nats per example", scale=alt.Scale(zero=False, padding=15)),
        y=alt.Y("mig:Q", title="MIG", scale=alt.Scale(domainMin=0)),
        color=alt.Color(
            "objective:N", title="objective", sort=names, scale=alt.Scale(range=["#0072B2", "#E69F00", "#009E73"])
        ),
    )
    points = base.mark_circle(size=70, opacity=0.9)
    return (points + base.mark_text(dx=9, align="left", fontSize=11).encode(text="weight:N")).properties(
        width=460, height=300
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=35)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--lines", nargs="+", choices=LINES, default=list(LINES))
    parser.add_argument("--directory", type=Path, default=Path("outputs/disentanglement"))
    given = parser.parse_args()
    rows = []
    for name in given.lines:
        for seed in given.seeds:
            rows.append(scored_run(name, seed, given.epochs, given.directory))
            print(json.dumps(rows[-1]), flush=True)
    charts.to_png(picture(rows)).save(given.directory / "tradeoff.png")


if __name__ == "__main__":
    main()
