"""Bounds and log-likelihoods of held-out data."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vae_cli import noise
from vae_cli.build.settings import parse_bytes
from vae_cli.data import Split
from vae_cli.data.batches import labels, pixels
from vae_cli.distributed.ranks import Rank
from vae_cli.distributions import LatentDistribution, analytic_kl
from vae_cli.evaluation.totals import Totals
from vae_cli.models import Level, Model
from vae_cli.objectives import Objective
from vae_cli.system import memory

DRAWS = 50  # of z whose noise is drawn together
TOGETHER = 1 << 22  # values that the decoder gives at once
MOST_ROWS = {"cpu": 2048}  # latent vectors decoded at once; larger products are no faster on a CPU
MANY_ROWS = 1 << 15  # on other devices
MEMORY_SHARE = 0.1  # of the free memory, for decoded images and all that is made of them
MOST_MEMORY = 1 << 29  # bytes of it, by default
COPIES = 8  # of a decoded value in memory at once, 4 bytes each
COMPARED = 10  # images in a chunk at the least, for terms that compare images with each other


@torch.no_grad()
def evaluate(
    model: Model, objective: Objective, split: Split, seed: int, step: int = 0, rank: Rank | None = None
) -> dict[str, float]:
    """Means over a split, in nats per example: `elbo`, `bound`, `loss` and the objective's terms.

    An image's base noise is a function of the seed, its index and the number of draws, and no stream of the training
    moves. Terms that compare images with each other (β-TC, MMD) do so within chunks of 10 to 250 images.

    Args:
        split: images that are not drawn anew at every use.
        step: of the training. Schedules of the supplied objectives are at their final values.
        rank: of this process among those that divide the images. Each gets the same numbers.
    """
    was_training, judged = model.training, [model, *([] if objective.module is None else [objective.module])]
    for module in judged:
        module.eval()
    totals = Totals(next(model.parameters()).device)
    own = (rank or Rank()).share(len(split))
    for first, last in _blocks(own.start, own.stop):
        _add(totals, model, objective, split, slice(first, last), seed, step)
    if own.start == own.stop:  # the names of the sums are wanted, and nothing to sum
        _add(totals, model, objective, split, slice(0, 1), seed, step, counts=False)
    totals.all_reduce()
    for module in judged:
        module.train(was_training)
    return totals.means()


def _blocks(start: int, stop: int) -> Iterator[tuple[int, int]]:
    """The ranges of images between two whose noise is drawn together."""
    while start < stop:
        last = min(stop, (start // noise.BLOCK + 1) * noise.BLOCK)
        yield start, last
        start = last


def _add(
    totals: Totals,
    model: Model,
    objective: Objective,
    split: Split,
    images: slice,
    seed: int,
    step: int,
    counts: bool = True,
) -> None:
    """Take in what the objective makes of some images, in chunks; or nothing of it but the names."""
    device, draws = totals.sums.device, objective.mc_samples
    dim, count = objective.noise_dim(model), images.stop - images.start
    drawn = noise.by_image(count, draws, dim, seed, "evaluation", start=images.start)
    chunk = max(COMPARED, noise.BLOCK // draws)
    for start, part in zip(range(images.start, images.stop, chunk), drawn.split(chunk, dim=1)):
        index = slice(start, start + part.shape[1])
        batch = pixels(split, index, device), labels(split, index, device)
        bound = objective(model, batch, part.to(device), step)
        totals.add(bound.sums(), counts)


@dataclass(frozen=True)
class Scores:
    """Estimates from K draws of z for each of N examples, in nats, float64 on the CPU.

    Args:
        elbo: (N,).
        reconstruction: (N,), the mean of log p(x|z).
        kl: (N,), analytic where there is a closed form, else the draws' mean.
        log_likelihood: (M, N), the estimate of log p(x) by M numbers of draws.
        kl_by_level: (L, N), from z1 on, each given the levels above; their sum is `kl`.
    """

    elbo: Float[Tensor, "n"]
    reconstruction: Float[Tensor, "n"]
    kl: Float[Tensor, "n"]
    log_likelihood: Float[Tensor, "m n"]
    kl_by_level: Float[Tensor, "l n"]


def score(
    model: Model,
    split: Split,
    draws: Sequence[int],
    seed: int,
    count: int | None = None,
    together: int = TOGETHER,
    advance: Callable[[int], object] = lambda images: None,
    grad: bool = False,
) -> Scores:
    r"""Return the bound and the importance-weighted estimate of log p(x) of the first `count` examples of a split:

        log p(x) ≈ log (1/K) Σ_k p(x|z_k) p(z_k) / q(z_k|x),   z_k ~ q(z|x)

    a lower bound in expectation that rises to log p(x) with K. Y. Burda, R. Grosse and R. Salakhutdinov, Importance
    Weighted Autoencoders, 2016.

    The noise is a function of the seed and the example's index: other examples, more draws and chunks of another size
    change a value by rounding alone.

    Args:
        split: examples.
        draws: several K, for a row of `Scores.log_likelihood` each; the other numbers are from the largest.
        together: values that the decoder may give at once.
        advance: called with the number of examples done since its last call.
        grad: keep the graph that gradients follow.
    """
    was_training = model.training
    model.eval()
    images = len(split) if count is None else min(count, len(split))
    blocks = []
    with torch.set_grad_enabled(grad):
        for first in range(0, images, noise.BLOCK):
            index = slice(first, min(first + noise.BLOCK, images))
            blocks.append(_score_block(model, split, index, draws, seed, together))
            advance(blocks[-1].elbo.shape[0])
    model.train(was_training)
    return Scores(*(torch.cat([getattr(block, f.name) for block in blocks], dim=-1) for f in fields(Scores)))


def values_at_once(size: str) -> int:
    """Return how many values the decoder may give in one call, within a size of memory or `auto`."""
    allowed = min(MEMORY_SHARE * memory.available(), MOST_MEMORY) if size == "auto" else parse_bytes(size)
    return max(1, int(allowed / (4 * COPIES)))


def _score_block(model: Model, split: Split, index: slice, draws: Sequence[int], seed: int, together: int) -> Scores:
    x, y = batch(model, split, index, seed)
    posterior, prior = model.encode(x, y), model.latent_prior(y)
    rows = max(1, min(MOST_ROWS.get(x.device.type, MANY_ROWS), together // _values_of_a_row(model)))
    log_likelihood = torch.empty(len(draws), len(x), dtype=torch.float64)
    total = torch.full((1, len(x)), -math.inf, dtype=torch.float64)
    levels = 0 if model.is_flat else len(model.level_sizes)
    sums = torch.zeros(2 + levels, len(x), dtype=torch.float64)
    for done in range(0, max(draws), DRAWS):
        drawn = noise.by_image(len(x), DRAWS, model.noise_dim, seed, "log_likelihood", done, start=index.start)
        drawn = drawn[: max(draws) - done]
        if rows >= len(x):
            terms = _terms(model, x, y, posterior, prior, drawn, rows // len(x))
        else:  # not even one draw of all examples has room
            columns = []
            for first in range(0, len(x), rows):
                some = slice(first, first + rows)
                x_, y_ = x[some], None if y is None else y[some]
                own = model.encode(x_, y_), model.latent_prior(y_)
                columns.append(_terms(model, x_, y_, *own, drawn[:, some], 1))
            terms = torch.cat(columns, dim=2)
        sums += terms.sum(1)
        running = torch.cat([total, terms[1]]).logcumsumexp(0)
        total = running[-1:]
        for row, number in enumerate(draws):
            if done < number <= done + DRAWS:
                log_likelihood[row] = running[number - done] - math.log(number)
    reconstruction, elbo, *by_level = sums / max(draws)
    if by_level:
        kl_by_level = torch.stack(by_level)
        kl = kl_by_level.sum(0)
    else:
        closed = analytic_kl(posterior, prior)
        kl = reconstruction - elbo if closed is None else closed.cpu().double()
        kl_by_level = kl[None]
    return Scores(reconstruction - kl, reconstruction, kl, log_likelihood, kl_by_level)


def _values_of_a_row(model: Model) -> int:
    """Return about how many values a network gives at once for one latent vector; a hierarchy has its features beside
    every draw."""
    values = math.prod(model.likelihood.output_shape)
    return values if model.is_flat else max(values, model.features_per_example)


def _terms(
    model: Model,
    x: Tensor,
    y: Tensor | None,
    posterior: LatentDistribution,
    prior: LatentDistribution,
    drawn: Float[Tensor, "k b e"],
    draws: int,
) -> Float[Tensor, "t k b"]:
    """Return log p(x|z) and log w = log p(x|z) + log p(z) − log q(z|x), with some draws decoded at once; of a hierarchy
    the KL of each level besides, of a level without a closed form log q − log p."""
    parts = []
    for part in drawn.split(draws):
        e = model.evidence(x, part.to(x), y, posterior=posterior, prior=prior)
        terms = [e.log_p_x_given_z, e.log_p_x_given_z + e.log_p_z - e.log_q_z_given_x]
        parts.append(torch.stack(terms if model.is_flat else terms + [_level_kl(level) for level in e.levels]))
    return torch.cat(parts, dim=1).cpu().double()


def _level_kl(level: Level) -> Float[Tensor, "k b"]:
    closed = level.analytic_kl()
    return level.log_q - level.log_p if closed is None else closed.expand(level.log_p.shape)


@torch.no_grad()
def reconstructions(model: Model, split: Split, seed: int) -> Iterator[tuple[Tensor, Distribution]]:
    """Yield the examples of a split and p(x|z) at the mean of their q(z|x), as many at once as fit into memory."""
    size = max(1, min(noise.BLOCK, TOGETHER // math.prod(model.likelihood.output_shape)))
    for start in range(0, len(split), size):
        x, y = batch(model, split, slice(start, min(start + size, len(split))), seed)
        yield x, model.reconstruct(x, y)


def batch(model: Model, split: Split, index: slice, seed: int) -> tuple[Tensor, Tensor | None]:
    """Return examples of a split with their labels on the model's device; those of a dynamic split are drawn once, the
    same for the same index.

    Their strides are those of their shape, whatever a data set's arrays have for axes of length 1: torch chooses the
    algorithm of a convolution by them, and equal images would differ in rounding.
    """
    device = next(model.parameters()).device
    generator = noise.generator(seed, "binarize", index.start or 0, device=device) if split.dynamic else None
    x = pixels(split, index, device, generator)
    return x.flatten().view(x.shape), labels(split, index, device)
