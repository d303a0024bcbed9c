"""Time of an evaluation's log-likelihood beside the decoder's matrix products alone, interleaved in one process.

The model is the default one for MNIST, 784-400-2·16 and 16-400-784; its weights and the images are random, which
changes no time. The floor multiplies the decoder's matrices with as many rows as there are draws.
"""

from __future__ import annotations

import argparse
import json

import torch
from training_step import interleaved

from vae_cli import build, config
from vae_cli.data import DataFacts, Split
from vae_cli.evaluate import MOST_ROWS, score
from vae_cli.evaluation import draws_up_to, numbers_together


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=250)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.manual_seed(0)
    settings = config.compose("train", ["latent_dim=16", "likelihood=bernoulli"])
    model = build.model(settings, DataFacts("synthetic", (1, 28, 28), "binary", 0, 60_000)).eval()
    split = Split((torch.rand(arguments.images, 1, 28, 28) < 0.15).to(torch.uint8), None, 1.0)
    layers = [layer.weight.detach() for layer in model.decoder.modules() if isinstance(layer, torch.nn.Linear)]
    rows = [torch.randn(MOST_ROWS, weight.shape[1]) for weight in layers]
    draws, together = draws_up_to(arguments.draws), numbers_together("auto")

    def products() -> None:
        for _ in range(-(-arguments.images * arguments.draws // MOST_ROWS)):
            for x, weight in zip(rows, layers):
                x @ weight.T

    actions = {"log_likelihood": lambda: score(model, split, draws, 0, together=together), "products": products}
    found = {name: value / 1e3 for name, value in interleaved(actions, arguments.rounds, 1).items()}
    ratio = found["log_likelihood"] / found["products"]
    print(json.dumps({"seconds": found, "ratio": ratio, "threads": torch.get_num_threads()} | vars(arguments)))


if __name__ == "__main__":
    main()
