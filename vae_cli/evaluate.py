"""The held-out numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli import noise
from vae_cli.data import Split
from vae_cli.data.batches import labels, pixels
from vae_cli.model import VAE
from vae_cli.objectives import Objective
from vae_cli.totals import Totals

DRAWS = 50  # of z whose noise is drawn together
TOGETHER = 1 << 22  # values that the decoder gives in one call


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


@torch.no_grad()
def log_likelihood(
    model: VAE, split: Split, draws: Sequence[int], seed: int, count: int | None = None
) -> Float[Tensor, "k n"]:
    r"""The importance-weighted estimate of log p(x), in nats, of each of the first `count` images of a split:

        log p(x) ≈ log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    a lower bound in expectation that rises to log p(x) with K. Y. Burda, R. Grosse and R. Salakhutdinov, Importance
    Weighted Autoencoders, 2016.

    The noise is a function of the seed and the image's index: neither other images nor more draws change a value.

    Args:
        draws: several K; one row of the result (K, N), float64 on the CPU, belongs to each.
        split: images that are not drawn anew at every use.
    """
    was_training = model.training
    model.eval()
    images = len(split) if count is None else min(count, len(split))
    blocks = [
        _block_log_likelihood(model, split, slice(first, min(first + noise.BLOCK, images)), draws, seed)
        for first in range(0, images, noise.BLOCK)
    ]
    model.train(was_training)
    return torch.cat(blocks, dim=1)


def _block_log_likelihood(model: VAE, split: Split, index: slice, draws: Sequence[int], seed: int) -> Tensor:
    device = next(model.parameters()).device
    x, y = pixels(split, index, device), labels(split, index, device)
    found = torch.empty(len(draws), len(x), dtype=torch.float64)
    total = torch.full((1, len(x)), -math.inf, dtype=torch.float64)
    for seen in range(0, max(draws), DRAWS):
        drawn = noise.by_image(len(x), DRAWS, model.noise_dim, seed, "log_likelihood", seen, start=index.start)
        weights = torch.cat(list(_log_weights(model, x, y, drawn[: max(draws) - seen])), dim=1)
        running = torch.cat([total, weights]).logcumsumexp(0)
        total = running[-1:]
        for row, number in enumerate(draws):
            if seen < number <= seen + DRAWS:
                found[row] = running[number - seen] - math.log(number)
    return found


def _log_weights(model: VAE, x: Tensor, y: Tensor | None, drawn: Tensor) -> Iterator[Float[Tensor, "k b"]]:
    """log p(x|z) + log p(z) − log q(z|x) in float64 on the CPU, a few images at a time."""
    values = math.prod(model.likelihood.output_shape)
    images = max(1, TOGETHER // (values * len(drawn)))
    for start in range(0, len(x), images):
        index = slice(start, start + images)
        parts = []
        for part in drawn[:, index].split(max(1, TOGETHER // values)):
            evidence = model.evidence(x[index], part.to(x), None if y is None else y[index])
            parts.append(evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x)
        yield torch.cat(parts).double().cpu()
