"""Scores by predictors, on codes whose scores are known, and by hand."""

import numpy as np
import pytest
from scipy.stats import entropy

from tests.support.known_codes import drawn
from vae_cli.evaluation.factor_prediction import (
    Examples,
    Groups,
    beta_vae_accuracy,
    completeness,
    disentanglement,
    divided,
    factor_vae_accuracy,
    importances,
    separated_attribute_predictability,
    separation,
)


def dci(kind, trees="extra_trees"):
    codes, factors = drawn(kind, count=1200)
    importance, accuracies = importances(*divided(codes, factors, 0), trees, 0)
    return disentanglement(importance), completeness(importance), accuracies.mean()


def test_a_third_of_the_images_is_for_the_test_and_none_is_on_both_sides():
    codes = np.arange(300.0)[:, None].repeat(2, 1)
    train, test = divided(codes, codes.astype(int), 0)
    assert len(test.codes) == 100 and set(train.codes[:, 0]) | set(test.codes[:, 0]) == set(range(300))
    assert (train.codes[:, 0] == train.factors[:, 0]).all()
    many = np.zeros((20_000, 1))
    assert [len(part.codes) for part in divided(many, many, 0)] == [10_000, 5_000]


def test_disentanglement_and_completeness_are_of_entropies_by_hand():
    importance = np.array([[0.8, 0.0, 0.1], [0.2, 0.9, 0.0], [0.0, 0.1, 0.9], [0.0, 0.0, 0.0]])
    rows = [1 - entropy(row, base=3) for row in importance[:3]]
    weights = importance.sum(1)[:3] / importance.sum()
    assert disentanglement(importance) == pytest.approx(weights @ rows)
    columns = [1 - entropy(column, base=4) for column in importance.T]
    assert completeness(importance) == pytest.approx(importance.sum(0) / importance.sum() @ columns)
    assert disentanglement(np.eye(4)) == completeness(np.eye(4)) == 1
    assert disentanglement(np.ones((3, 3))) == pytest.approx(0) and disentanglement(np.zeros((3, 3))) == 0


@pytest.mark.parametrize("trees", ["random_forest", "extra_trees", "gradient_boosting"])
def test_each_kind_of_trees_finds_the_factors_where_they_are(trees):
    codes, factors = drawn("factors", count=300, factors=2)
    importance, accuracies = importances(*divided(codes, factors, 0), trees, 0)
    assert disentanglement(importance) > 0.9 and completeness(importance) > 0.9 and accuracies.min() > 0.97


def test_the_three_dci_scores_fall_where_they_should():
    d, c, i = dci("factors")
    assert d > 0.95 and c > 0.95 and i > 0.99
    split_d, split_c, _ = dci("split")
    assert split_d > 0.95 and split_c < c - 0.05
    merged_d, merged_c, merged_i = dci("merged")
    assert merged_d < d - 0.15 and merged_c > 0.95 and merged_i > 0.95
    noise_d, noise_c, noise_i = dci("noise")
    assert noise_d < 0.1 and noise_c < 0.1 and noise_i < 0.25
    rotated_d, _, rotated_i = dci("rotated")
    assert rotated_d < 0.5 and rotated_i > 0.5


def test_separation_is_the_accuracy_of_each_dimension_alone():
    values = np.arange(200) % 2
    codes = np.stack([10.0 * values, np.zeros(200), 10.0 * (np.arange(200) % 4 > 1)], 1)
    factors = np.stack([values, values], 1)
    examples = Examples(codes, factors)
    assert separation(examples, examples, 0)[:, 0] == pytest.approx([1, 0.5, 0.5], abs=0.01)


@pytest.mark.parametrize("trees", ["random_forest", "extra_trees", "gradient_boosting"])
def test_a_factor_with_one_value_in_training_is_predicted_to_have_it(trees):
    random = np.random.default_rng(0)
    codes, values = random.normal(size=(60, 2)), random.integers(2, size=60)
    train = Examples(codes, np.stack([np.full(60, 3), values], 1))
    test = Examples(codes, np.stack([np.repeat([3, 4], [45, 15]), values], 1))
    importance, accuracies = importances(train, test, trees, 0)
    assert (importance[:, 0] == 0).all() and importance[:, 1].sum() == pytest.approx(1) and accuracies[0] == 0.75
    assert (separation(train, test, 0)[:, 0] == 0.75).all()


def test_sap_is_the_best_accuracy_less_the_second():
    assert separated_attribute_predictability(np.array([[0.9, 0.2], [0.5, 0.3], [0.1, 0.6]])) == pytest.approx(0.35)


def test_images_of_a_group_have_one_value_in_common_and_are_all_drawn_as_often():
    factors = np.stack([np.repeat([0, 3], [30, 10]), np.arange(40) % 5], 1)
    groups, random = Groups(factors), np.random.default_rng(0)
    for factor in (0, 1):
        first = random.integers(40, size=8000)
        second = groups.alike(first, np.array(factor), random)
        assert (factors[first, factor] == factors[second, factor]).all()
        counts = np.bincount(groups.alike(np.full(8000, 35), np.array(factor), random), minlength=40)
        members = np.flatnonzero(factors[:, factor] == factors[35, factor])
        assert (np.flatnonzero(counts) == members).all()
        assert counts[members].std() < 3 * np.sqrt(8000 / len(members))


@pytest.mark.parametrize("score", [beta_vae_accuracy, factor_vae_accuracy])
def test_the_fixed_factor_is_told_from_the_factors_themselves_and_not_from_noise(score):
    assert score(*drawn("factors"), 0) > 0.99 and score(*drawn("constant"), 0) > 0.99
    assert score(*drawn("noise"), 0) < 0.35


def test_two_factors_in_one_dimension_are_not_told_apart_by_the_steadiest_dimension():
    assert factor_vae_accuracy(*drawn("merged"), 0) < 0.9
    assert factor_vae_accuracy(np.zeros((100, 3)), drawn("factors", count=100)[1], 0) == 0


def test_the_rounding_of_a_constant_dimension_has_no_vote():
    codes, factors = drawn("factors")
    constant = np.full((len(codes), 1), 0.3, np.float32)
    constant[:10] += np.spacing(constant[0])  # in most groups no image differs, and this dimension is the steadiest
    both = np.concatenate([codes, constant], 1)
    assert both[:, -1].std() > 0
    assert factor_vae_accuracy(both, factors, 0) == factor_vae_accuracy(codes, factors, 0)


def test_the_same_seed_gives_the_same_numbers():
    codes, factors = drawn("rotated", count=600)
    for score in (beta_vae_accuracy, factor_vae_accuracy):
        assert score(codes, factors, 1) == score(codes, factors, 1) != score(codes, factors, 2)
