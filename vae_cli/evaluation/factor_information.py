"""Scores of codes by what each dimension tells about each factor: mutual information, and no training."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import xlogy

BINS = 20  # of equal width, as in disentanglement_lib
BLOCKS = 10  # of images, left out one after the other for standard errors
ROUNDING = 1e-6  # of single-precision codes, beside the largest of them


def binned(codes: Float[np.ndarray, "n d"], bins: int = BINS) -> Int[np.ndarray, "n d"]:
    """Return the bin of each code, of equal widths from the smallest to the largest code of its dimension."""
    return np.stack([np.digitize(code, np.histogram_bin_edges(code, bins)[1:-1]) for code in codes.T], 1)


def varying(codes: Float[np.ndarray, "n d"]) -> Bool[np.ndarray, "d"]:
    """Return which dimensions vary by more than the rounding of single precision, beside their own size and that of the
    largest deviation."""
    deviation = codes.std(0)
    size = np.maximum(np.abs(codes.mean(0)), deviation.max(initial=0))
    return deviation > ROUNDING * np.maximum(size, 1e-30)


def counts_by_block(codes: Int[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"]) -> list[list[np.ndarray]]:
    """Return, for each dimension and each factor, how often each pair of values occurs in each block: (BLOCKS, b, v).

    Images are in blocks at random, the same ones each time. In a grid, every tenth image may have the same value.
    """
    block = np.random.default_rng(0).permutation(len(codes)) % BLOCKS
    tables = []
    for code in codes.T:
        row = []
        for factor in factors.T:
            shape = (BLOCKS, int(code.max()) + 1, int(factor.max()) + 1)
            pairs = np.ravel_multi_index((block, code, factor), shape)
            row.append(np.bincount(pairs, minlength=math.prod(shape)).reshape(shape))
        tables.append(row)
    return tables


def information(counts: np.ndarray) -> float:
    """Return the mutual information of two discrete variables in nats, Σ p(a, b) log p(a, b) / (p(a) p(b)).

    Args:
        counts: how often each pair of values occurs, (A, B).
    """
    p = counts / counts.sum()
    return max(0.0, float(xlogy(p, p).sum() - sum(xlogy(q, q).sum() for q in (p.sum(0), p.sum(1)))))


def mutual_information(codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"]) -> Float[np.ndarray, "d f"]:
    """Return the mutual information of each binned dimension and each factor, in nats."""
    return _information_of(counts_by_block(binned(codes), factors))


def information_bias(codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"]) -> Float[np.ndarray, "d f"]:
    """Return by how much the mutual information of N images is too large on average, in nats, for each dimension and
    factor: (b − 1)(v − 1) / 2N of b bins and v values that occur, where the two are independent, to the first order.

    G. A. Miller, Note on the Bias of Information Estimates, 1955.
    """
    free_bins, free_values = ([len(np.unique(column)) - 1 for column in table.T] for table in (binned(codes), factors))
    return np.outer(free_bins, free_values) / (2 * len(codes))


def _information_of(tables: list[list[np.ndarray]], without: int | None = None) -> np.ndarray:
    """Return the mutual information of each dimension and factor, of all blocks but one perhaps."""

    def of(table: np.ndarray) -> float:
        every = table.sum(0)
        return information(every if without is None else every - table[without])

    return np.array([[of(table) for table in row] for row in tables])


def entropies(factors: Int[np.ndarray, "n f"]) -> Float[np.ndarray, "f"]:
    """Return the entropy of each factor in nats, −Σ p(v) log p(v)."""
    shares = [np.bincount(factor) / len(factor) for factor in factors.T]
    return np.array([-xlogy(p, p).sum() for p in shares])


def gaps(information: Float[np.ndarray, "d f"], entropy: Float[np.ndarray, "f"]) -> Float[np.ndarray, "f"]:
    """Return the mutual information gap of each factor: that of the dimension that tells most of it less that of the
    second, over the factor's entropy. Their mean is the MIG.

    R. T. Q. Chen, X. Li, R. Grosse and D. Duvenaud, Isolating Sources of Disentanglement in VAEs, NeurIPS 2018,
    arXiv:1802.04942.
    """
    ordered = np.sort(information, axis=0)
    return (ordered[-1] - ordered[-2]) / entropy


def gaps_with_errors(
    codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"]
) -> tuple[Float[np.ndarray, "f"], Float[np.ndarray, "f"], float]:
    """Return the gap of each factor, its standard error, and that of their mean, by the jackknife over ten blocks."""
    tables, entropy = counts_by_block(binned(codes), factors), entropies(factors)
    without = np.array([gaps(_information_of(tables, block), entropy) for block in range(BLOCKS)])
    errors, error = (np.sqrt((BLOCKS - 1) * values.var(0)) for values in (without, without.mean(1)))
    return gaps(_information_of(tables), entropy), errors, float(error)


def modularity(information: Float[np.ndarray, "d f"]) -> float:
    """Return the mean over the dimensions of 1 − Σ_g m_g² / (m² (F − 1)), where m is a dimension's largest mutual
    information with a factor and the sum is over the others. A dimension that tells nothing counts as 0.

    K. Ridgeway and M. C. Mozer, Learning Deep Disentangled Embeddings with the F-Statistic Loss, NeurIPS 2018,
    arXiv:1802.05312.
    """
    squares = np.square(information)
    largest = squares.max(1)
    others = (squares.sum(1) - largest) / (squares.shape[1] - 1)
    return float(np.where(largest > 0, 1 - others / np.where(largest > 0, largest, 1), 0).mean())


def gaussian_total_correlation(codes: Float[np.ndarray, "n d"]) -> float | None:
    """Return ½ (Σ_d log Σ_dd − log |Σ|) of the codes' covariance Σ, in nats: the KL divergence of a normal distribution
    from the product of its marginals. Constant dimensions are left out. None where others depend on each other.

    F. Locatello et al., Challenging Common Assumptions in the Unsupervised Learning of Disentangled Representations,
    ICML 2019, arXiv:1811.12359.
    """
    kept = varying(codes)
    if kept.sum() < 2:
        return 0.0
    sign, value = np.linalg.slogdet(np.corrcoef(codes[:, kept].T))
    return max(0.0, -0.5 * float(value)) if sign > 0 and np.isfinite(value) else None
