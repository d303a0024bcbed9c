"""Scores by mutual information, held against scikit-learn and tables by hand."""

import numpy as np
import pytest
from sklearn.metrics import mutual_info_score

from tests.support.known_codes import drawn, fixed
from vae_cli.evaluation.factor_information import (
    BINS,
    binned,
    entropies,
    gaps,
    gaps_with_errors,
    gaussian_total_correlation,
    information,
    information_bias,
    modularity,
    mutual_information,
)

LOG2 = np.log(2)


def test_information_of_a_table_is_that_by_hand():
    assert information(np.array([[2, 0], [0, 2]])) == pytest.approx(LOG2)
    assert information(np.array([[1, 1], [1, 1]])) == pytest.approx(0, abs=1e-12)
    # p = (1/2, 0; 1/4, 1/4): H(A) = H(B') mixed, I = 3/4 log 4/3 ... = Σ p log p/(pa pb)
    by_hand = 0.5 * np.log(0.5 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / (0.5 * 0.75)) + 0.25 * np.log(0.25 / (0.5 * 0.25))
    assert information(np.array([[2, 0], [1, 1]])) == pytest.approx(by_hand)


def test_bins_are_of_equal_width_and_hold_both_ends():
    codes = np.stack([np.linspace(-1, 3, 81), np.full(81, 0.7)], 1)
    bins = binned(codes)
    assert bins[0, 0] == 0 and bins[-1, 0] == BINS - 1 and len(np.unique(bins[:, 1])) == 1
    # 80 steps in 20 bins: four each, and the last value beside the last four
    assert np.bincount(bins[:, 0]).tolist() == [4] * 19 + [5]


def test_mutual_information_and_entropy_are_those_of_scikit_learn():
    codes, factors = fixed()
    expected = [[mutual_info_score(code, factor) for factor in factors.T] for code in binned(codes).T]
    assert np.allclose(mutual_information(codes, factors), expected, atol=1e-12)
    assert np.allclose(entropies(factors), [mutual_info_score(factor, factor) for factor in factors.T])


def test_the_bias_is_that_of_codes_that_are_independent_of_the_factors():
    random = np.random.default_rng(0)
    codes, factors = random.uniform(size=(900, 40)), random.integers([2, 4, 7], size=(900, 3))
    expected = information_bias(codes, factors)
    assert expected[0] == pytest.approx([19 * free / 1800 for free in (1, 3, 6)])
    assert mutual_information(codes, factors).mean(0) == pytest.approx(expected.mean(0), rel=0.1)
    assert information_bias(np.full((100, 1), 0.5), factors[:100]).max() == 0


def test_the_gap_is_the_best_less_the_second_over_the_entropy():
    table = np.array([[1.0, 0.1], [0.4, 0.7], [0.3, 0.2]])
    assert gaps(table, np.array([2.0, 0.5])) == pytest.approx([0.3, 1.0])


def test_the_gap_is_near_one_of_the_factors_themselves_and_near_zero_rotated_or_of_noise():
    mig = {kind: gaps_with_errors(*drawn(kind))[0].mean() for kind in ("factors", "rotated", "noise", "constant")}
    assert mig["factors"] > 0.98 and mig["constant"] > 0.98
    assert mig["rotated"] < 0.3 and mig["noise"] < 0.02


def test_the_standard_error_is_that_of_repeated_draws():
    one = drawn("rotated", count=1000)
    _, by_factor, error = gaps_with_errors(*one)
    repeated = []
    for seed in range(30):
        random = np.random.default_rng(seed)
        chosen = random.integers(1000, size=1000)
        repeated.append(gaps_with_errors(one[0][chosen], one[1][chosen])[0].mean())
    assert 0.4 < error / np.std(repeated) < 2.5 and len(by_factor) == 4 and (by_factor > 0).all()


def test_the_standard_error_does_not_hang_on_the_order_of_a_grid():
    # The last factor is the number of the image modulo 10.
    factors = np.stack(np.unravel_index(np.arange(4 * 25 * 10), (4, 25, 10)), 1)[:, [0, 2]]
    noise = np.random.default_rng(0).normal(size=(2, 1000))
    codes = np.stack(
        [factors[:, 1] ** 2 / 30 + factors[:, 0], np.minimum(factors[:, 1], 3) + 0.3 * noise[0], noise[1]], 1
    )
    order = np.random.default_rng(1).permutation(len(codes))
    error, shuffled = gaps_with_errors(codes, factors)[2], gaps_with_errors(codes[order], factors[order])[2]
    assert 0.4 < error / shuffled < 2.5


def test_modularity_is_that_by_hand():
    assert modularity(np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])) == 1
    # 1 − (0.25 + 0) / (1 · 2), and 0 of a dimension that tells nothing
    assert modularity(np.array([[1.0, 0.5, 0.0], [0.0, 0.0, 0.0]])) == pytest.approx((0.875 + 0) / 2)
    assert modularity(np.ones((3, 3))) == pytest.approx(0)


def test_modularity_stays_where_one_factor_is_in_two_dimensions_and_falls_where_two_are_in_one():
    values = {kind: modularity(mutual_information(*drawn(kind))) for kind in ("factors", "split", "merged")}
    assert values["factors"] > 0.99 and values["split"] > 0.99 and values["merged"] < 0.95


def test_the_total_correlation_is_that_of_normal_distributions():
    random = np.random.default_rng(0)
    x = random.normal(size=(200_000, 2))
    for r in (0.0, 0.6):
        codes = np.stack([3 * x[:, 0], r * x[:, 0] + np.sqrt(1 - r**2) * x[:, 1]], 1)
        assert gaussian_total_correlation(codes) == pytest.approx(-0.5 * np.log(1 - r**2), abs=0.005)


def test_the_total_correlation_leaves_out_constants_and_knows_no_value_of_copies():
    random = np.random.default_rng(0)
    x = random.normal(size=(500, 2))
    both = np.concatenate([x, np.full((500, 1), 2.0)], 1)
    assert gaussian_total_correlation(both) == pytest.approx(gaussian_total_correlation(x))
    assert gaussian_total_correlation(np.ones((10, 3))) == 0
    rounded = np.concatenate([x, 2 + 1e-7 * (x[:, :1] > 0)], 1)
    assert gaussian_total_correlation(rounded) == pytest.approx(gaussian_total_correlation(x))
    value = gaussian_total_correlation(np.concatenate([x, x], 1))
    assert value is None or value > 15
