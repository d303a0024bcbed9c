"""Trainings in several processes, forked from a server that has imported everything once, with the variables that
torchrun sets.
"""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from vae_cli.config import compose
from vae_cli.runs import checkpoint
from vae_cli.training import loop
from vae_cli.training.run import run as train

FORKED = multiprocessing.get_context("forkserver")
FORKED.set_forkserver_preload(
    [
        "vae_cli.training.run",
        "vae_cli.cli",
        "torch.distributed",
        "torch.utils.tensorboard",
        "sklearn.datasets",
        "pytest",
    ]
)
SMALL = [
    *("report=false", "epochs=3", "latent_dim=3", "device=cpu", "encoder.hidden=[16]", "decoder.hidden=[16]"),
    *("dataset.binarize=dynamic", "mc_samples=2", "sample_every=2", "optimizer=sgd", "optimizer.lr=0.02"),
]
BATCH = 200  # 1417 images are 7 such batches and one of 17, which two processes share as 8 and 9
TWO = [*SMALL, f"batch_size={BATCH // 2}", "hydra.run.dir=run"]
TIMING = ("seconds", "images_per_second")
CLOSE = 2e-6


def work(rank, count, port, folder, argv, extra):
    """One of the processes, with its output in files of its own."""
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True")
    torch.set_num_threads(1)
    os.chdir(folder)
    for stream, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}.{rank}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    from vae_cli import cli

    if extra is not None:
        what, at, who = extra
        _disturb(WHATS[what], at, rank == who)
    cli.train(argv)


def _disturb(what, at, here):
    honest = loop.step

    def disturbed(state, *arguments):
        if here and state.position.step == at:
            what()
        honest(state, *arguments)

    loop.step = disturbed


def _fail():
    raise MemoryError


def _note_tiny():
    Path("tiny").write_text(str(float(torch.tensor(1e-30) * 1e-10)))


WHATS = {
    "noting how tiny numbers count": _note_tiny,
    "killed": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "SIGTERM": lambda: os.kill(os.getpid(), signal.SIGTERM),
    "SIGINT": lambda: os.kill(os.getpid(), signal.SIGINT),
    "failing": _fail,
}


def start(count, folder, *argv, extra=None):
    """Start so many processes in a folder; return the store that they need meanwhile, and the processes."""
    store = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    folder.mkdir(exist_ok=True)
    arguments = [(rank, count, store.port, str(folder), list(argv), extra) for rank in range(count)]
    processes = [FORKED.Process(target=work, args=each) for each in arguments]
    for process in processes:
        process.start()
    return store, processes


def together(count, folder, *argv, extra=None, limit=60):
    """Train with so many processes in a folder; the exit statuses, what was said, and the complaints."""
    store, processes = start(count, folder, *argv, extra=extra)
    deadline = time.monotonic() + limit
    while any(process.is_alive() for process in processes) and time.monotonic() < deadline:
        if any(process.exitcode for process in processes):  # as torchrun, after a moment to end by themselves
            for process in processes:
                process.join(5)
            for process in processes:
                process.terminate()
        time.sleep(0.05)
    for process in processes:
        process.join(2)
    del store  # through which the processes have found each other
    left = [process for process in processes if process.is_alive()]
    for process in left:
        process.kill()
    said, complaints = ([(folder / f"{name}.{rank}").read_text() for rank in range(count)] for name in ("out", "err"))
    assert not left, f"{len(left)} processes hang: {said} {complaints}"
    assert not any(said[1:]), "only the first process speaks"
    for rank in range(count):
        for name in ("out", "err"):
            (folder / f"{name}.{rank}").unlink()
    return [process.exitcode for process in processes], said[0], "".join(complaints)


def alone(directory, *overrides):
    assert train(compose.compose("train", [*SMALL, f"batch_size={BATCH}", *overrides]), directory) == 0
    return directory


def numbers(directory):
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [dict(scalars({key: value for key, value in line.items() if key not in TIMING})) for line in lines]


def scalars(line):
    for key, value in line.items():
        yield from (
            ((f"{key}/{i}", entry) for i, entry in enumerate(value)) if isinstance(value, list) else [(key, value)]
        )


def assert_same_to_rounding(one, other, weights=CLOSE, nats=2e-5):
    for name in ("best", "last"):
        a, b = (checkpoint.load(d / "checkpoints" / f"{name}.safetensors") for d in (one, other))
        for part in ("model", "ema"):
            for key, value in (a[part] or {}).items():
                torch.testing.assert_close(b[part][key], value, rtol=0, atol=weights)
        assert a["best"]["epoch"] == b["best"]["epoch"] and a["progress"]["step"] == b["progress"]["step"]
    assert len(numbers(one)) == len(numbers(other))
    for a, b in zip(numbers(one), numbers(other)):
        assert a.pop("split") == b.pop("split")
        assert b == pytest.approx(a, rel=0, abs=nats)
