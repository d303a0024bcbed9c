"""Time of a whole training step beside the step's matrix products alone, interleaved in one process.

The step is the one `vae-train` takes: an index selection and a dynamic binarization, noise, forward, backward, guard,
Adam, and the running sums. The floor multiplies matrices of the same sizes: three products per layer, two for the
first, whose input needs no gradient.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import count

import torch

from vae_cli import config
from vae_cli.data import Data, DataFacts, Split
from vae_cli.train import Training


def training(batch_size: int) -> Training:
    """784-400-20-400-784 on images that have MNIST's mean, drawn anew at every use."""
    images = (torch.rand(20_000, 1, 28, 28) < 0.15).to(torch.uint8) * 230
    split = Split(images, None, 255.0, dynamic=True)
    facts = DataFacts("synthetic", (1, 28, 28), "binary", 0, len(images))
    settings = config.compose("train", ["latent_dim=20", f"batch_size={batch_size}", "likelihood=bernoulli"])
    return Training(settings, Data(split, None, split, facts), torch.device("cpu"))


def steps(trained: Training) -> Callable[[], None]:
    """One training step per call."""

    def batches() -> Iterator[tuple[int, int, object]]:
        for epoch in count():
            for number, batch in trained.batches.epoch(epoch):
                yield epoch, number, batch

    stream = batches()

    def step() -> None:
        epoch, number, batch = next(stream)
        drawn = trained.noise(len(batch[0]), epoch, number)
        bound = trained.bound(batch, drawn)
        bound.loss.backward()
        trained.descend(bound)

    return step


def products(batch_size: int) -> Callable[[], None]:
    """The step's matrix products per call."""
    sizes = [(784, 400), (400, 40), (20, 400), (400, 784)]
    weights = [torch.randn(n, m) for m, n in sizes]
    inputs = [torch.randn(batch_size, m) for m, _ in sizes]
    outputs = [torch.randn(batch_size, n) for _, n in sizes]

    def multiply() -> None:
        for layer, (w, x, g) in enumerate(zip(weights, inputs, outputs)):
            x @ w.T
            g.T @ x
            if layer:
                g @ w

    return multiply


def interleaved(actions: dict[str, Callable[[], None]], rounds: int, calls: int) -> dict[str, float]:
    """Median milliseconds per call of each action, taking turns."""
    times: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            began = time.perf_counter()
            for _ in range(calls):
                action()
            if turn:  # the first round warms up
                times[name].append((time.perf_counter() - began) / calls * 1e3)
    return {name: statistics.median(found) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--calls", type=int, default=20)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    actions = {"step": steps(training(arguments.batch_size)), "products": products(arguments.batch_size)}
    found = interleaved(actions, arguments.rounds, arguments.calls)
    print(json.dumps({"milliseconds": found, "ratio": found["step"] / found["products"]} | vars(arguments)))


if __name__ == "__main__":
    main()
