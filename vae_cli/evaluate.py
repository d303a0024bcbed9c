"""The held-out numbers."""

from __future__ import annotations

import torch

from vae_cli import noise
from vae_cli.data import Split
from vae_cli.data.batches import labels, pixels
from vae_cli.model import VAE
from vae_cli.objectives import Objective
from vae_cli.totals import Totals


@torch.no_grad()
def evaluate(model: VAE, objective: Objective, split: Split, seed: int, step: int = 0) -> dict[str, float]:
    """Means over a split, in nats per image: `elbo`, `bound`, `loss` and the objective's terms.

    An image's base noise is a function of the seed, its index and the number of draws: the numbers do not depend on
    the size of the chunks, and no stream of the training moves.

    Args:
        split: images that are not drawn anew at every use.
        step: where the objective's own schedules stand.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    totals = Totals(device)
    chunk = max(1, noise.BLOCK // objective.mc_samples)
    for first in range(0, len(split), noise.BLOCK):
        count = min(noise.BLOCK, len(split) - first)
        drawn = noise.by_image(count, objective.mc_samples, objective.noise_dim(model), seed, "evaluation", start=first)
        for start, part in zip(range(first, first + count, chunk), drawn.split(chunk, dim=1)):
            index = slice(start, start + part.shape[1])
            batch = pixels(split, index, device), labels(split, index, device)
            totals.add(objective(model, batch, part.to(device), step))
    model.train(was_training)
    return totals.means()
