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

    An image's base noise is a function of (seed, its index) alone: the numbers do not depend on the order or the
    size of the chunks, and no stream of the training moves.

    Args:
        split: images that are not drawn anew at every use.
        step: where the objective's own schedules stand.
    """
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    totals = Totals(device)
    for start in range(0, len(split), noise.BLOCK):
        index = slice(start, min(start + noise.BLOCK, len(split)))
        x, y = pixels(split, index).to(device), labels(split, index)
        drawn = noise.by_image(len(x), objective.mc_samples, model.noise_dim, seed, "evaluation", start=start)
        totals.add(objective(model, (x, None if y is None else y.to(device)), drawn.to(x), step))
    model.train(was_training)
    return totals.means()
