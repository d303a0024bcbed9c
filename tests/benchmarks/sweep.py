"""A sweep of 12 jobs on MNIST: one after the other, beside each other, and killed half way and started again.

    python tests/benchmarks/sweep.py [--epochs 2] [--rounds 1]

Needs MNIST where VAE_DATA_DIR says. Prints seconds and ratios, and whether all tables are the same.
"""

import argparse
import csv
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LINE = [
    "-m",
    "dataset=mnist",
    "latent_dim=2,8,16",
    "optimizer=adam,adamw",
    "seed=0,1",
    "report=false",
    "sample_every=0",
]
CORES = "hydra/launcher=cores"


def command(sweep: Path, epochs: int, *more: str) -> list[str]:
    return [sys.executable, "-m", "vae_cli", "train", *LINE, f"epochs={epochs}", *more, f"sweep={sweep}"]


def seconds(*call: str) -> float:
    began = time.monotonic()
    subprocess.run(call, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


def killed_half_way(call: list[str], after: float) -> None:
    with subprocess.Popen(call, stdout=subprocess.DEVNULL, start_new_session=True) as process:
        time.sleep(after)
        os.killpg(process.pid, signal.SIGKILL)


def table(sweep: Path) -> list[tuple[str, ...]]:
    with (sweep / "sweep.csv").open(newline="") as file:
        return [(row["job"], row["status"], row["overrides"], row["test_elbo"]) for row in csv.DictReader(file)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=1)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, alone, beside = Path(name), [], []
        for number in range(chosen.rounds):
            alone.append(seconds(*command(folder / f"alone{number}", chosen.epochs)))
            beside.append(seconds(*command(folder / f"beside{number}", chosen.epochs, CORES)))
        one, other = statistics.median(alone), statistics.median(beside)
        print(
            f"12 jobs of {chosen.epochs} epochs: one after the other {one:.1f} s, "
            f"{CORES} {other:.1f} s, {one / other:.2f}×"
        )
        again = command(folder / "killed", chosen.epochs, CORES)
        killed_half_way(again, other / 2)
        left = len(table(folder / "killed"))
        rest = seconds(*again)
        print(f"killed -9 after {other / 2:.1f} s with {left} of 12 jobs done; started again it took {rest:.1f} s")
        tables = [table(folder / sweep) for sweep in ("alone0", "beside0", "killed")]
        print("tables: killed and undisturbed", "the same" if tables[1] == tables[2] else "DIFFERENT")
        worst = max(abs(float(a[3]) - float(b[3])) for a, b in zip(tables[0], tables[1]))
        print(f"largest difference of a test ELBO between one and all threads: {worst:.2g} nats")


if __name__ == "__main__":
    main()
