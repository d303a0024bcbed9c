"""UDR, on codes that agree and codes that do not."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from vae_cli.evaluation.run_agreement import agreement, rank_correlations

RANDOM = np.random.default_rng(0)
CODES = RANDOM.normal(size=(400, 4))
ALL = np.ones(4, bool)


def test_rank_correlations_are_those_of_scipy():
    other = np.stack([np.exp(CODES[:, 1]), -CODES[:, 0] + RANDOM.normal(size=400), np.ones(400)], 1)
    found = rank_correlations(CODES, other)
    expected = [[abs(spearmanr(one, two).statistic) for two in other.T[:2]] for one in CODES.T]
    assert np.allclose(found[:, :2], expected) and found[1, 0] == pytest.approx(1) and (found[:, 2] == 0).all()


def test_the_same_code_in_another_order_sign_and_scale_agrees_and_a_rotated_one_does_not():
    uncorrelated, _ = np.linalg.qr(CODES - CODES.mean(0))
    permuted = -3 * uncorrelated[:, [2, 0, 3, 1]] ** 3
    turn, _ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    assert agreement(uncorrelated, [permuted], ALL, [ALL]) > 0.85
    assert agreement(uncorrelated, [uncorrelated @ turn], ALL, [ALL]) < 0.6


def test_the_score_of_a_pair_is_that_of_the_published_formula():
    other = CODES @ RANDOM.normal(size=(4, 3))
    r = np.abs(spearmanr(CODES, other).statistic[:4, 4:])
    expected = (np.sum(r.max(0) ** 2 / r.sum(0)) + np.sum(r.max(1) ** 2 / r.sum(1))) / (4 + 3)
    assert agreement(CODES, [other], ALL, [np.ones(3, bool)]) == pytest.approx(expected)


def test_it_is_the_median_over_the_others_and_leaves_out_what_says_nothing():
    turn, _ = np.linalg.qr(RANDOM.normal(size=(4, 4)))
    others = [CODES, CODES @ turn, RANDOM.normal(size=CODES.shape)]
    pairs = [agreement(CODES, [other], ALL, [ALL]) for other in others]
    assert agreement(CODES, others, ALL, [ALL] * 3) == pytest.approx(np.median(pairs))
    wide, kept = np.concatenate([CODES, RANDOM.normal(size=(400, 2))], 1), np.array([True] * 4 + [False] * 2)
    assert agreement(wide, [wide], kept, [kept]) == pytest.approx(pairs[0])
    assert agreement(CODES, [CODES], ~ALL, [ALL]) == 0
