"""A hundred times kill -9 at random, in six kinds of runs: nothing is lost, and the end is the same bit for bit."""

import json
import random
import time

import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from tests.support.torchrun import TIMING, start

RUN = [
    *("report=false", "epochs=150", "latent_dim=3", "device=cpu", "sample_every=0", "checkpoint_every=0.2 s"),
    *("dataset.binarize=dynamic", "batch_size=64", "scheduler=cosine"),
]
NETWORKS = ["encoder.hidden=[16]", "decoder.hidden=[16]"]
KINDS = {
    "elbo with averages": [*NETWORKS, "ema_decay=0.99"],
    "iwae": [*NETWORKS, "objective=iwae", "mc_samples=5"],
    "flow prior": [*NETWORKS, "prior=flow", "prior.transforms=2", "prior.hidden=[8]"],
    "factor_vae": [*NETWORKS, "objective=factor_vae", "objective.hidden=[16]", "ema_decay=0.99"],
    "conditional": [*NETWORKS, "conditional=true", "optimizer=muon"],
    "two processes": [*NETWORKS, "optimizer=sgd", "optimizer.lr=0.001"],
}
KILLS = 20


def run_until(is_due, kind, folder, argv):
    """Train until it is due to kill all processes, or to the end; return whether any was killed."""
    store, workers = start(2 if kind == "two processes" else 1, folder, *argv)
    while any(worker.is_alive() for worker in workers) and not is_due():
        time.sleep(0.005)
    alive = [worker for worker in workers if worker.is_alive()]
    for worker in alive:
        worker.kill()
    for worker in workers:
        worker.join()
    del store
    return bool(alive)


def at_random(rng, checkpoint):
    """Return when to kill: at any moment of a start, or up to a second after the training has saved."""
    began, seconds, before = time.monotonic(), rng.uniform(0, 1), saved_at(checkpoint)
    is_early = rng.random() < 0.2

    def is_due():
        nonlocal began
        if not is_early and saved_at(checkpoint) == before:
            began = time.monotonic()
        return time.monotonic() - began >= seconds

    return is_due


def saved_at(checkpoint):
    return checkpoint.stat().st_mtime_ns if checkpoint.exists() else None


def outcome(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    assert summary["status"] == "completed"
    return (
        [{k: v for k, v in line.items() if k not in TIMING} for line in lines],
        summary["test"],
        summary["best_epoch"],
    )


def stored(path):
    """Return every tensor, that of the optimizer and the random states included, and the texts but for times."""
    with safe_open(path, framework="numpy") as file:
        texts = {name: json.loads(text) for name, text in file.metadata().items() if name != "digest"}
    texts["progress"].pop("seconds")
    return {name: value.tobytes() for name, value in load_file(path).items()}, texts


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_twenty_kills_of_a_kind_of_run_lose_nothing_and_change_no_bit(kind, tmp_path):
    argv, rng, kills = [*RUN, *KINDS[kind], "hydra.run.dir=run"], random.Random(kind), 0
    for name in ("calm", "killed"):
        (tmp_path / name).mkdir()
    run_until(lambda: False, kind, tmp_path / "calm", argv)
    run, summary = tmp_path / "killed" / "run", tmp_path / "killed" / "run" / "summary.json"
    last = run / "checkpoints" / "last.safetensors"
    while not (summary.exists() and json.loads(summary.read_text())["status"] == "completed"):
        words = ["resume=run"] if last.exists() else argv
        is_due = at_random(rng, last) if kills < KILLS else lambda: False
        kills += run_until(is_due, kind, tmp_path / "killed", words)
    assert kills == KILLS, "the runs are too short to be killed"
    assert outcome(tmp_path / "calm" / "run") == outcome(run)
    for name in ("best", "last"):
        paths = [folder / "checkpoints" / f"{name}.safetensors" for folder in (tmp_path / "calm" / "run", run)]
        assert stored(paths[0]) == stored(paths[1])
