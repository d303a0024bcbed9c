"""Unsupervised disentanglement ranking: how well the codes of one model are those of others in another order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import rankdata

INFORMATIVE = 0.01  # nats of KL above which a dimension counts


def agreement(
    codes: Float[np.ndarray, "n d"],
    others: Sequence[Float[np.ndarray, "n _"]],
    informative: Bool[np.ndarray, "d"],
    others_informative: Sequence[Bool[np.ndarray, "_"]],
) -> float:
    """Return the UDR of a model beside others that encode the same images: the median of its agreement with each.

    With R the absolute rank correlations (D_a, D_b) of the informative dimensions of two models, it is

        1 / (D_a + D_b) · [Σ_b (max_a R_ab)² / Σ_a R_ab + Σ_a (max_b R_ab)² / Σ_b R_ab],

    1 where each dimension of one has exactly one of the other that goes with it, and 0 without informative ones.

    S. Duan et al., Unsupervised Model Selection for Variational Disentangled Representation Learning, ICLR 2020,
    arXiv:1905.12614: the variant by Spearman's correlation. All dimensions count alike, as there. disentanglement_lib
    takes the mean over each model's own first: the same only where both models have as many.

    Args:
        codes: of the model.
        others: of the other models.
        informative: which of the model's dimensions count.
        others_informative: which of the others' do.
    """
    own = codes[:, informative]
    pairs = [(own, other[:, kept]) for other, kept in zip(others, others_informative)]
    return float(np.median([_relative_strength(rank_correlations(*pair)) for pair in pairs]))


def rank_correlations(one: Float[np.ndarray, "n d"], other: Float[np.ndarray, "n e"]) -> Float[np.ndarray, "d e"]:
    """Return the absolute value of Spearman's correlation of each dimension of one code with each of the other."""
    ranks = []
    for codes in (one, other):
        centered = rankdata(codes, axis=0) - (len(codes) + 1) / 2
        length = np.sqrt(np.square(centered).sum(0))
        ranks.append(centered / np.where(length > 0, length, 1))
    return np.abs(ranks[0].T @ ranks[1])


def _relative_strength(correlation: np.ndarray) -> float:
    if 0 in correlation.shape:
        return 0.0
    sides = [np.square(each.max(0)) / np.maximum(each.sum(0), 1e-30) for each in (correlation, correlation.T)]
    return float(np.concatenate(sides).mean())
