"""Statistics of the latent codes of a split."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vae_cli import noise
from vae_cli.data import Split
from vae_cli.distributions import LatentDistribution, kl_by_dimension
from vae_cli.evaluation.bounds import batch
from vae_cli.models import Model
from vae_cli.objectives import mmd

CHUNK = noise.BLOCK  # examples encoded together
ACTIVE = 0.01  # variance of the posterior mean over the examples above which a unit is active
MMD_BLOCK, MMD_BLOCKS = 500, 10  # examples in a block, and blocks
PAIRS_OF_FACTORIZED, PAIRS = 10_000, 1_000  # most examples whose codes are compared pair by pair
NEIGHBOURS = 5


class Points(NamedTuple):
    """The posterior means (N, D) of examples, with their labels (N,) if there are any, on the CPU."""

    means: Tensor
    labels: Tensor | None


@dataclass(frozen=True)
class Codes:
    """The posteriors of N examples, chunk by chunk, with their labels if there are any."""

    posteriors: list[LatentDistribution]
    labels: Int[Tensor, "n"] | None

    @cached_property
    def means(self) -> Float[Tensor, "n d"]:
        """The posterior means, on the CPU. A hierarchy runs all its blocks for them."""
        return torch.cat([q.mean.cpu() for q in self.posteriors])

    @property
    def points(self) -> Points:
        """The posterior means and the labels."""
        return Points(self.means, self.labels)

    def draws(self, model: Model, seed: int) -> Float[Tensor, "n d"]:
        """Return one draw from each posterior, a function of the seed and the example's index, on the CPU."""
        return torch.cat([_draw(model, q, seed, number * CHUNK) for number, q in enumerate(self.posteriors)])


@torch.no_grad()
def encode(model: Model, split: Split, seed: int, count: int | None = None) -> Codes:
    """Return the posteriors of the first `count` examples of a split, all of which stay in memory."""
    images = len(split) if count is None else min(count, len(split))
    posteriors = [q for _, q in _posteriors(model, split, seed, images)]
    return Codes(posteriors, None if split.labels is None else split.labels[:images].cpu())


@torch.no_grad()
def points(model: Model, split: Split, seed: int, count: int | None = None) -> Points:
    """Return the means of q(z|x) of the first `count` examples of a split, or of all."""
    images = len(split) if count is None else min(count, len(split))
    means = [q.mean.cpu() for _, q in _posteriors(model, split, seed, images)]
    return Points(torch.cat(means), None if split.labels is None else split.labels[:images].cpu())


@torch.no_grad()
def draws(model: Model, split: Split, seed: int) -> Float[Tensor, "n d"]:
    """Return one draw from q(z|x) of each example of a split, a function of the seed and its index, on the CPU."""
    return torch.cat([_draw(model, q, seed, start) for start, q in _posteriors(model, split, seed, len(split))])


def _posteriors(model: Model, split: Split, seed: int, images: int) -> Iterator[tuple[int, LatentDistribution]]:
    for start in range(0, images, CHUNK):
        yield start, model.encode(*batch(model, split, slice(start, min(start + CHUNK, images)), seed))


def _draw(model: Model, q: LatentDistribution, seed: int, start: int) -> Tensor:
    epsilon = noise.by_image(q.batch_shape[0], 1, model.noise_dim, seed, "codes", start=start)
    return q.rsample_and_log_prob(epsilon.to(q.mean))[0][0].cpu()


def active_units(means: Float[Tensor, "n d"]) -> int:
    """Return the number of dimensions whose posterior mean has a variance above 0.01 over the examples.

    Y. Burda, R. Grosse and R. Salakhutdinov, Importance Weighted Autoencoders, 2016.
    """
    return int((means.double().var(0) > ACTIVE).sum())


@torch.no_grad()
def kl_per_dim(model: Model, codes: Codes) -> Float[Tensor, "d"] | None:
    """Return the mean KL(q(z_d|x) ‖ p(z_d)) of each dimension, in nats; None without a closed form."""
    _, prior = model.example_distributions()
    by_chunk = [kl_by_dimension(q, prior) for q in codes.posteriors]
    closed = [kl.cpu().double() for kl in by_chunk if kl is not None]
    return torch.cat(closed).mean(0) if len(closed) == len(by_chunk) else None


@torch.no_grad()
def aggregate_gap(model: Model, codes: Codes, seed: int) -> tuple[float, float, int]:
    """Return the squared maximum mean discrepancy between draws of the aggregate posterior and of the prior: its
    unbiased estimate from blocks of 500 examples, ten at most, the standard error over the blocks (NaN for one block,
    which is all that fewer than 1,000 examples have), and the number of examples in them."""
    z = codes.draws(model, seed)
    size = min(MMD_BLOCK, len(z))
    blocks = z.split(size)[: min(MMD_BLOCKS, len(z) // size)]
    device = codes.posteriors[0].mean.device
    gaps = []
    for number, block in enumerate(blocks):
        epsilon = noise.by_image(size, 1, model.prior_noise_dim, seed, "prior", start=number * size)[0].to(device)
        y = None if codes.labels is None else codes.labels[number * size : (number + 1) * size].to(device)
        drawn, _ = model.latent_prior(y).rsample_and_log_prob(epsilon)
        gaps.append(float(mmd(block.double(), drawn.cpu().double())))
    values = torch.tensor(gaps, dtype=torch.float64)
    error = float(values.std() / math.sqrt(len(values))) if len(values) > 1 else math.nan
    return float(values.mean()), error, len(values) * size


@torch.no_grad()
def index_code_information(model: Model, codes: Codes, seed: int) -> Float[Tensor, "n"]:
    """Return log q(z_i|x_i) − log (1/N) Σ_j q(z_i|x_j) for a draw z_i of each of N examples. Its mean estimates the
    mutual information of example and code from below and cannot exceed log N.

    M. D. Hoffman and M. J. Johnson, ELBO surgery, 2016. N is at most 10,000, or 1,000 where the posterior does
    not factorize.
    """
    most = PAIRS_OF_FACTORIZED if codes.posteriors[0].is_factorized else PAIRS
    posteriors = codes.posteriors[: -(-most // CHUNK)]
    z = codes.draws(model, seed)[: sum(q.batch_shape[0] for q in posteriors)]
    information = []
    for start in range(0, len(z), CHUNK):
        part = z[start : start + CHUNK]
        log_q = torch.cat([q.log_prob_of_all(part.to(q.mean)).cpu().double() for q in posteriors], dim=1)
        number = torch.arange(len(part))
        information.append(log_q[number, start + number] - (log_q.logsumexp(1) - math.log(len(z))))
    return torch.cat(information)


def knn_accuracy(train: Points, test: Points) -> float:
    """Return the accuracy of the label that most of the 5 nearest training codes have."""
    from sklearn.neighbors import KNeighborsClassifier

    return _accuracy(KNeighborsClassifier(NEIGHBOURS), train, test)


def linear_probe_accuracy(train: Points, test: Points) -> float:
    """Return the accuracy of logistic regression on standardized training codes."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return _accuracy(make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)), train, test)


def _accuracy(classifier: object, train: Points, test: Points) -> float:
    assert train.labels is not None and test.labels is not None
    classifier.fit(train.means.numpy(), train.labels.numpy())  # type: ignore[attr-defined]
    return float((classifier.predict(test.means.numpy()) == test.labels.numpy()).mean())  # type: ignore[attr-defined]
