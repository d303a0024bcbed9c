"""Distances between two sets of images, in the features that a network makes of them.

The Fréchet distance and the kernel are those of torchmetrics. Its `KernelInceptionDistance` is not used: it works in
float32, draws subsets that overlap from torch's global stream, and gives their deviation in place of a standard error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli import noise
from vae_cli.evaluation.numbers import Number, mean, number

NEIGHBOURS = {"precision": 3, "recall": 3, "density": 5, "coverage": 5}  # k, as in the papers
FEWEST = 20  # images of a set
FEW = 2000  # images, below which the Fréchet distance is too large to be compared with that of more
MOST_PAIRED = 20_000  # images of a set that are compared with all of the other
SUBSETS, LARGEST_SUBSET = 10, 1000  # disjoint ones, for the kernel distance's standard error; images in one
VALUES = 1 << 20  # distances or kernel values at once: 8 MB, which caches hold and the system need not map anew
TIE = 1e-9  # relative difference of squared distances that is rounding
ZERO = 1e-12  # squared distance, in units of the squared norms, that is rounding
FRECHET_ROWS = 1000


def is_biased(n: int, n_features: int) -> bool:
    """Return whether a Fréchet distance of so many images is too large to be compared with that of more."""
    return n < max(FEW, 2 * n_features)


@dataclass(frozen=True)
class Reference:
    """The features of the images that others are compared with.

    Args:
        features: (N, F), on the CPU.
        seed: of the subsets.
    """

    features: Float[Tensor, "n f"]
    seed: int = 0

    def compare(self, others: Float[Tensor, "m f"]) -> dict[str, Number]:
        """Return the numbers of another set of images: `frechet_distance`, `kernel_distance`, `precision`, `recall`,
        `density` and `coverage`. All but the first are of at most 20,000 images of each set.
        """
        count = min(len(self.features), len(others))
        distance = number(frechet_distance(self.features, others), count)
        chosen = _spread(others)
        numbers = {"frechet_distance": distance, "kernel_distance": self._kernel_distance(chosen)}
        return numbers | self._neighbourhoods(chosen)

    @cached_property
    def _paired(self) -> Float[Tensor, "n f"]:
        return _spread(self.features)

    def _kernel_distance(self, others: Float[Tensor, "m f"]) -> Number:
        """Return the kernel distance of all pairs, and its standard error over ten or more disjoint subsets."""
        from torchmetrics.image.kid import poly_mmd

        value = self._own_kernel + mean_kernel(others) - 2 * _mean_cross_kernel(self._paired, others)
        count = min(len(self._paired), len(others))
        size = max(2, min(LARGEST_SUBSET, count // SUBSETS))
        order = [
            torch.randperm(len(each), generator=noise.generator(self.seed, "subsets", place)).split(size)
            for place, each in enumerate((self._paired, others))
        ]
        subsets = [
            poly_mmd(self._paired[one].double(), others[other].double())
            for one, other in list(zip(*order))[: count // size]
        ]
        return mean(torch.stack(subsets)) | {"value": value, "n": count}

    @cached_property
    def _own_kernel(self) -> float:
        return mean_kernel(self._paired)

    @cached_property
    def _radii(self) -> dict[int, Tensor]:
        return squared_radii(self._paired.double() - self._center, sorted({*NEIGHBOURS.values()}))

    @cached_property
    def _center(self) -> Tensor:
        """The mean, without which distances are computed with less rounding."""
        return self._paired.double().mean(0)

    def _neighbourhoods(self, others: Float[Tensor, "m f"]) -> dict[str, Number]:
        real, fake = self._paired.double() - self._center, others.double() - self._center
        near = {name: self._radii[NEIGHBOURS[name]] for name in ("precision", "density", "coverage")}
        k = NEIGHBOURS["recall"]
        own = squared_radii(fake, [k])[k]
        precise, counts = torch.zeros(len(fake)), torch.zeros(len(fake))
        recalled, covered = (torch.zeros(len(real), dtype=torch.bool) for _ in range(2))
        for rows, distances in _distances(fake, real):
            precise[rows] = _is_within(distances, near["precision"]).any(1).float()
            counts[rows] = _is_within(distances, near["density"]).sum(1).float()
            covered |= _is_within(distances, near["coverage"]).any(0)
            recalled |= _is_within(distances, own[rows, None]).any(0)
        return {
            "precision": mean(precise.double()),
            "recall": mean(recalled.double()),
            "density": mean(counts.double() / NEIGHBOURS["density"]),
            "coverage": mean(covered.double()),
        }


class _AsTheyAre(nn.Module):
    """Features in place of images, for torchmetrics."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features


def frechet_distance(real: Float[Tensor, "n f"], fake: Float[Tensor, "m f"]) -> float:
    """Return the squared Fréchet distance of two normals with the sets' means and covariances:

        ‖μ₁ − μ₂‖² + tr(Σ₁ + Σ₂ − 2 (Σ₁Σ₂)^{1/2})

    in float64. M. Heusel et al., GANs Trained by a Two Time-Scale Update Rule, 2017.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(_AsTheyAre(real.shape[1]))
    center = real.double().mean(0)  # which loses no digits to large means
    for features, is_real in ((real, True), (fake, False)):
        for rows in features.split(FRECHET_ROWS):
            metric.update(rows.double() - center, real=is_real)
    return max(0.0, float(metric.compute()))  # rounding makes a 0 negative


def mean_kernel(x: Float[Tensor, "n f"]) -> float:
    """Return the mean of k(x_i, x_j) = (x_i·x_j / F + 1)³ over i ≠ j, in float64.

    With the mean over the pairs of two sets it gives the unbiased estimate of their squared maximum mean discrepancy,
    the kernel distance: E k(x, x') + E k(y, y') − 2 E k(x, y). M. Bińkowski et al., Demystifying MMD GANs, 2018.
    """
    own = ((x.double().square().sum(1) / x.shape[1]) + 1) ** 3
    return (_mean_cross_kernel(x, x) * len(x) ** 2 - float(own.sum())) / (len(x) * (len(x) - 1))


def _mean_cross_kernel(x: Float[Tensor, "n f"], y: Float[Tensor, "m f"]) -> float:
    from torchmetrics.image.kid import poly_kernel

    y, total = y.double(), 0.0
    for rows in x.split(max(1, VALUES // len(y))):
        total += float(poly_kernel(rows.double(), y).sum())
    return total / (len(x) * len(y))


def squared_radii(x: Float[Tensor, "n f"], neighbours: list[int]) -> dict[int, Float[Tensor, "n"]]:
    """Return the squared distances to the k-th nearest of the other points, by k."""
    most = max(neighbours)
    nearest = torch.empty(len(x), most + 1, dtype=torch.float64)
    for rows, distances in _distances(x, x):
        nearest[rows] = distances.topk(most + 1, largest=False, sorted=True).values
    return {k: nearest[:, k] for k in neighbours}  # the nearest of all is the point itself


def _distances(x: Float[Tensor, "n f"], y: Float[Tensor, "m f"]) -> Iterator[tuple[slice, Tensor]]:
    """Yield the squared distances of some rows of x to all of y, float64 (rows, m), with the rows."""
    x, y = x.double(), y.double()
    norms = y.square().sum(1)
    size = max(1, VALUES // len(y))
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        sums = x[rows].square().sum(1, keepdim=True) + norms
        distances = torch.addmm(sums, x[rows], y.T, alpha=-2)
        yield rows, torch.where(distances <= ZERO * sums, 0.0, distances)


def _is_within(distances: Tensor, radii: Tensor) -> Tensor:
    """Return whether squared distances are at most squared radii, which counts equal ones whatever their rounding."""
    return distances <= radii * (1 + TIE)


def _spread(features: Float[Tensor, "n f"]) -> Float[Tensor, "m f"]:
    if len(features) <= MOST_PAIRED:
        return features
    return features[torch.linspace(0, len(features) - 1, MOST_PAIRED, dtype=torch.float64).long()]
