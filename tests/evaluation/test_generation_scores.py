"""Scores of generated images against closed forms, SciPy, torchmetrics fed by hand, and plain loops."""

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.spatial.distance import cdist
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from vae_cli.evaluation import generation_scores
from vae_cli.evaluation.generation_scores import Reference, frechet_distance, is_biased, mean_kernel, squared_radii

NAMES = {"frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"}


def normals(n, f=4, seed=0, loc=0.0, scale=1.0):
    return loc + scale * torch.randn(n, f, generator=torch.Generator().manual_seed(seed))


def values(real, fake, seed=0):
    return {name: number["value"] for name, number in Reference(real, seed).compare(fake).items()}


def between_normals(mean_1, cov_1, mean_2, cov_2):
    root = scipy.linalg.sqrtm(cov_1 @ cov_2).real
    return float(((mean_1 - mean_2) ** 2).sum() + np.trace(cov_1 + cov_2 - 2 * root))


# The Fréchet distance


@pytest.mark.parametrize("loc", [0.0, 1000.0])
def test_the_frechet_distance_is_that_of_the_sets_normals_by_scipy(loc):
    mix = torch.randn(4, 4, generator=torch.Generator().manual_seed(9))
    real, fake = normals(300, loc=loc), normals(200, seed=1) @ mix + 0.5 + loc
    one, other = real.double().numpy(), fake.double().numpy()
    expected = between_normals(one.mean(0), np.cov(one.T), other.mean(0), np.cov(other.T))
    assert frechet_distance(real, fake) == pytest.approx(expected, rel=1e-6)


def test_the_frechet_distance_of_many_draws_is_that_of_their_normals():
    """Diagonal covariances: the sum of (μ₁ − μ₂)² + (σ₁ − σ₂)²."""
    found = frechet_distance(normals(100_000), normals(100_000, seed=1, loc=0.5, scale=2.0))
    assert found == pytest.approx(4 * (0.25 + 1.0), rel=0.02)


def test_fewer_images_than_features_have_a_frechet_distance():
    one, other = normals(30, 50), normals(30, 50, seed=1)
    pair = [each.double().numpy() for each in (one, other)]
    # By the symmetric root, which bears covariances without full rank.
    covariances = [np.cov(each.T) for each in pair]
    e, v = np.linalg.eigh(covariances[0])
    root = v @ np.diag(np.sqrt(e.clip(0))) @ v.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    expected = ((pair[0].mean(0) - pair[1].mean(0)) ** 2).sum() + sum(map(np.trace, covariances)) - 2 * cross
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-5)


class Pooled(nn.Module):
    num_features = 6

    def forward(self, x):
        return nn.functional.adaptive_avg_pool2d(x, (2, 3)).flatten(1).double()


def test_both_distances_are_torchmetrics_own_of_the_same_images():
    generator = torch.Generator().manual_seed(0)
    real, fake = (torch.rand(60, 1, 8, 9, generator=generator) ** power for power in (1, 2))
    fid = FrechetInceptionDistance(Pooled())
    kid = KernelInceptionDistance(Pooled(), subsets=1, subset_size=60)  # all of them
    for metric in (fid, kid):
        metric.update(real, real=True)
        metric.update(fake, real=False)
    found = values(Pooled()(real).float(), Pooled()(fake).float())
    assert found["frechet_distance"] == pytest.approx(float(fid.compute()), rel=1e-5)
    assert found["kernel_distance"] == pytest.approx(float(kid.compute()[0]), rel=1e-4)


@pytest.mark.parametrize(
    ("n", "n_features", "expected"), [(1999, 64, True), (2000, 64, False), (4095, 2048, True), (4096, 2048, False)]
)
def test_few_images_are_said_to_make_it_too_large(n, n_features, expected):
    assert is_biased(n, n_features) is expected


def test_the_frechet_distance_of_one_distribution_falls_with_the_number_of_images_and_the_kernel_distance_does_not():
    few = [values(normals(40, 8, 2 * s), normals(40, 8, 2 * s + 1)) for s in range(20)]
    many = [values(normals(400, 8, 2 * s), normals(400, 8, 2 * s + 1)) for s in range(20)]
    distances = [np.mean([each["frechet_distance"] for each in some]) for some in (few, many)]
    assert distances[0] > 5 * distances[1] > 0
    kernels = np.array([each["kernel_distance"] for each in few])
    assert abs(kernels.mean()) < 3 * kernels.std() / math.sqrt(len(kernels))


# The kernel distance


def kernel(x, y):
    return (x @ y / len(x) + 1) ** 3


def by_pairs(x, y):
    """The unbiased estimate, one pair after the other."""
    own = [np.mean([kernel(a, b) for i, a in enumerate(each) for j, b in enumerate(each) if i != j]) for each in (x, y)]
    return sum(own) - 2 * np.mean([kernel(a, b) for a in x for b in y])


def test_the_kernel_distance_is_that_of_all_pairs(monkeypatch):
    real, fake = normals(25, 5), normals(30, 5, seed=1, loc=0.3)
    expected = by_pairs(real.double().numpy(), fake.double().numpy())
    assert values(real, fake)["kernel_distance"] == pytest.approx(expected, rel=1e-10)
    monkeypatch.setattr(generation_scores, "VALUES", 70)  # three rows at once
    assert values(real, fake)["kernel_distance"] == pytest.approx(expected, rel=1e-10)
    assert mean_kernel(torch.ones(3, 2)) == pytest.approx(8)


def test_the_kernel_distances_of_one_distribution_have_mean_0_and_errors_of_the_stated_size():
    found = [Reference(normals(100, seed=2 * s), s).compare(normals(100, seed=2 * s + 1)) for s in range(100)]
    distances = np.array([each["kernel_distance"]["value"] for each in found])
    assert abs(distances.mean()) < 3 * distances.std() / 10
    assert (distances < 0).any() and (distances > 0).any()


def test_the_standard_error_of_sets_that_differ_is_the_spread_over_repetitions():
    found = [Reference(normals(200, seed=2 * s), s).compare(normals(200, seed=2 * s + 1, loc=0.4)) for s in range(80)]
    spread = np.std([each["kernel_distance"]["value"] for each in found])
    stated = np.mean([each["kernel_distance"]["stderr"] for each in found])
    assert 0.75 < stated / spread < 1.6


# Neighbourhoods


def by_cdist(real, fake):
    """The definitions, from all distances."""
    real, fake = real.double().numpy(), fake.double().numpy()

    def radius(points, k):
        return np.sort(cdist(points, points), axis=1)[:, k]

    across = cdist(fake, real)
    return {
        "precision": (across <= radius(real, 3)[None]).any(1).mean(),
        "recall": (across <= radius(fake, 3)[:, None]).any(0).mean(),
        "density": (across <= radius(real, 5)[None]).sum() / (5 * len(fake)),
        "coverage": (across.min(0) <= radius(real, 5)).mean(),
    }


@pytest.mark.parametrize(("loc", "scale"), [(0.0, 1.0), (1.0, 0.5), (0.3, 2.0), (50.0, 1.0)])
def test_precision_recall_density_and_coverage_are_their_definitions(loc, scale, monkeypatch):
    real, fake = normals(120, 3), normals(90, 3, seed=1, loc=loc, scale=scale)
    expected = by_cdist(real, fake)
    monkeypatch.setattr(generation_scores, "VALUES", 1000)  # in blocks of several rows
    found = Reference(real).compare(fake)
    assert {name: found[name]["value"] for name in expected} == pytest.approx(expected, abs=1e-12)
    for name in ("precision", "recall", "coverage"):
        p, n = found[name]["value"], found[name]["n"]
        assert found[name]["stderr"] == pytest.approx(math.sqrt(p * (1 - p) / (n - 1)), abs=1e-12)


def test_the_radius_is_the_distance_to_the_kth_other_point():
    points = torch.tensor([[0.0], [1.0], [3.0], [7.0]])
    assert squared_radii(points, [1, 2])[1].tolist() == [1, 1, 4, 16]
    assert squared_radii(points, [1, 2])[2].tolist() == [9, 4, 9, 36]


@pytest.mark.parametrize("loc", [0.0, 300.0])
def test_identical_sets_are_no_distance_apart(loc):
    found = values(normals(200, 8, loc=loc), normals(200, 8, loc=loc))
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-6)
    assert (found["precision"], found["recall"], found["coverage"]) == (1, 1, 1)
    assert found["density"] == pytest.approx(6 / 5)  # each is within its own neighbourhood too


def test_sets_far_apart_share_nothing():
    found = values(normals(100), normals(100, seed=1, loc=100.0))
    assert found["frechet_distance"] == pytest.approx(4 * 100.0**2, rel=0.01) and found["kernel_distance"] > 1e6
    assert (found["precision"], found["recall"], found["density"], found["coverage"]) == (0, 0, 0, 0)


def test_one_mode_is_precise_and_covers_little():
    real = torch.cat([normals(200, 2), normals(200, 2, seed=1, loc=20.0)])
    found = values(real, normals(400, 2, seed=2))
    assert found["precision"] > 0.9 and found["recall"] < 0.6 and found["coverage"] < 0.6


def test_images_that_occur_many_times_have_neighbourhoods_of_radius_0():
    real = torch.cat([torch.zeros(50, 3), normals(50, 3, loc=5.0)])
    found = values(real, torch.zeros(30, 3))
    assert found["precision"] == 1 and found["coverage"] == pytest.approx(0.5) and found["density"] == 10


# Both


def test_the_order_of_the_images_changes_no_value():
    real, fake = normals(150, 6), normals(130, 6, seed=1, loc=0.5)
    mixed = values(real[torch.randperm(150)], fake[torch.randperm(130)])
    assert mixed == pytest.approx(values(real, fake), rel=1e-9)


def test_images_twice_are_as_far_away_as_images_once():
    real, fake = normals(500, 6), normals(500, 6, seed=1, loc=0.5)
    once, twice = frechet_distance(real, fake), frechet_distance(real.repeat(2, 1), fake.repeat(2, 1))
    assert twice == pytest.approx(once, rel=5e-3)  # but for N − 1 in the covariances


def test_the_same_seed_gives_the_same_numbers_whatever_torchs_stream():
    real, fake = normals(100), normals(100, seed=1)
    torch.manual_seed(0)
    first = Reference(real, 3).compare(fake)
    torch.manual_seed(1)
    assert Reference(real, 3).compare(fake) == first and first.keys() == NAMES
    other = Reference(real, 4).compare(fake)
    assert other["kernel_distance"]["stderr"] != first["kernel_distance"]["stderr"]


def test_of_many_images_a_part_is_compared_pair_by_pair(monkeypatch):
    monkeypatch.setattr(generation_scores, "MOST_PAIRED", 50)
    found = Reference(normals(200)).compare(normals(100, seed=1))
    assert {name: number["n"] for name, number in found.items()} == dict.fromkeys(NAMES, 50) | {"frechet_distance": 100}
