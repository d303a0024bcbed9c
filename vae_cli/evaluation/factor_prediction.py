"""Scores of codes by predictors that are trained on them: of factors from codes, and of which factor was held fixed."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy.special import xlogy

from vae_cli.evaluation.factor_information import varying

Trees = Literal["random_forest", "extra_trees", "gradient_boosting"]
MOST_TRAINED, MOST_TESTED = 10_000, 5_000  # images, as in disentanglement_lib
GROUP = 64  # images with one value of a factor in common
TRAINED_VOTES, TESTED_VOTES = 10_000, 5_000
TOGETHER = 500  # votes drawn at a time
FOREST, LEAF = 100, 5  # trees, and fewest images in a leaf
TREES: dict[Trees, str] = {
    "random_forest": f"random forest, {FOREST} trees, {LEAF} images a leaf, every dimension at each split",
    "extra_trees": f"extremely randomized trees, {FOREST}, {LEAF} images a leaf, every dimension at each split",
    "gradient_boosting": "gradient boosting, scikit-learn's defaults: 100 trees of depth 3 for each value",
}
Report = Callable[[], object]  # called after each step


class Examples(NamedTuple):
    """Codes (N, D) and factors (N, F)."""

    codes: np.ndarray
    factors: np.ndarray


def divided(codes: np.ndarray, factors: np.ndarray, seed: int) -> tuple[Examples, Examples]:
    """Return examples to train predictors on, and others to test them on: a third of all, at random, 5,000 at most."""
    order = np.random.default_rng([seed, 0]).permutation(len(codes))
    count = min(MOST_TESTED, len(codes) // 3)
    test, train = order[:count], order[count : count + MOST_TRAINED]
    return Examples(codes[train], factors[train]), Examples(codes[test], factors[test])


# Factors predicted from codes


def importances(
    train: Examples, test: Examples, trees: Trees, seed: int, report: Report = lambda: None
) -> tuple[Float[np.ndarray, "d f"], Float[np.ndarray, "f"]]:
    """Return how important each dimension is for the prediction of each factor by trees, and how many test images'
    factors they predict. Of a factor with one value in training no dimension is important, and that is predicted."""
    columns, accuracies = [], []
    for number in range(train.factors.shape[1]):
        trained, tested = train.factors[:, number], test.factors[:, number]
        if _is_constant(trained):
            columns.append(np.zeros(train.codes.shape[1]))
            accuracies.append(float((tested == trained[0]).mean()))
        else:
            model = _trees(trees, seed).fit(train.codes, trained)
            columns.append(np.abs(model.feature_importances_))
            accuracies.append(float((model.predict(test.codes) == tested).mean()))
        report()
    return np.stack(columns, 1), np.array(accuracies)


def _is_constant(factor: Int[np.ndarray, "n"]) -> bool:
    """Return whether a factor has one value: scikit-learn's classifiers refuse it."""
    return bool((factor == factor[0]).all())


def _trees(name: Trees, seed: int) -> Any:
    from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier

    if name == "gradient_boosting":
        return GradientBoostingClassifier(random_state=seed)
    kind = RandomForestClassifier if name == "random_forest" else ExtraTreesClassifier
    # All dimensions are looked at for each split: else trees use the useless ones where no other is on offer.
    return kind(FOREST, max_features=None, min_samples_leaf=LEAF, random_state=seed)


def disentanglement(importance: Float[np.ndarray, "d f"]) -> float:
    """Return Σ_d ρ_d (1 − H_F(P_d)): P_d is the share of each factor in a dimension's importance, H_F its entropy to
    the base F, and ρ_d the dimension's share of all importance.

    C. Eastwood and C. K. I. Williams, A Framework for the Quantitative Evaluation of Disentangled Representations,
    ICLR 2018.
    """
    sums = importance.sum(1)
    shares = importance / np.where(sums > 0, sums, 1)[:, None]
    concentration = 1 + xlogy(shares, shares).sum(1) / np.log(importance.shape[1])
    return float((sums * concentration).sum() / max(sums.sum(), 1e-30))


def completeness(importance: Float[np.ndarray, "d f"]) -> float:
    """Return the same of factors over dimensions: 1 where each factor is predicted from one dimension."""
    return disentanglement(importance.T)


def separation(train: Examples, test: Examples, seed: int, report: Report = lambda: None) -> Float[np.ndarray, "d f"]:
    """Return how many test images' factors a linear support vector machine predicts from each dimension alone.

    Of a factor with one value in training that is the prediction.
    """
    from sklearn.svm import LinearSVC

    scores = np.zeros((train.codes.shape[1], train.factors.shape[1]))
    for dimension in range(len(scores)):
        for number in range(scores.shape[1]):
            trained, tested = train.factors[:, number], test.factors[:, number]
            if _is_constant(trained):
                scores[dimension, number] = (tested == trained[0]).mean()
                continue
            model = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
            with _without_warnings():
                model.fit(train.codes[:, [dimension]], trained)
            scores[dimension, number] = (model.predict(test.codes[:, [dimension]]) == tested).mean()
        report()
    return scores


def separated_attribute_predictability(separation: Float[np.ndarray, "d f"]) -> float:
    """Return the SAP score: the mean over the factors of the best dimension's accuracy less the second's.

    A. Kumar, P. Sattigeri and A. Balakrishnan, Variational Inference of Disentangled Latent Concepts from Unlabeled
    Observations, ICLR 2018, arXiv:1711.00848.
    """
    ordered = np.sort(separation, axis=0)
    return float((ordered[-1] - ordered[-2]).mean())


# The fixed factor predicted from a group of images


class Groups:
    """Images that have the value of a factor in common, drawn from those that there are.

    Args:
        factors: (N, F), whole numbers from 0 on.
    """

    def __init__(self, factors: Int[np.ndarray, "n f"]) -> None:
        self.factors, self.order = factors, np.argsort(factors, axis=0, kind="stable")
        values = np.arange(int(factors.max()) + 2)
        ordered = np.take_along_axis(factors, self.order, 0)
        self.starts = np.stack([np.searchsorted(column, values) for column in ordered.T])

    def alike(self, images: np.ndarray, factor: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """Return, for each image, one with the same value of a factor, at random and perhaps itself."""
        value = self.factors[images, factor]
        first, last = self.starts[factor, value], self.starts[factor, value + 1]
        return self.order[first + (random.random(images.shape) * (last - first)).astype(np.int64), factor]


def beta_vae_accuracy(codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"], seed: int) -> float:
    """Return how often logistic regression tells which factor was held fixed, from mean |z − z'| over 64 pairs of
    images, each pair with one value of that factor.

    I. Higgins et al., beta-VAE: Learning Basic Visual Concepts with a Constrained Variational Framework, ICLR 2017.
    """
    from sklearn.linear_model import LogisticRegression

    def drawn(count: int) -> tuple[np.ndarray, np.ndarray]:
        features, fixed = [], []
        for factor in _fixed(random, factors.shape[1], count):
            first = random.integers(len(codes), size=(len(factor), GROUP))
            second = groups.alike(first, factor[:, None], random)
            features.append(np.abs(codes[first] - codes[second]).mean(1))
            fixed.append(factor)
        return np.concatenate(features), np.concatenate(fixed)

    random, groups = np.random.default_rng([seed, 1]), Groups(factors)
    with _without_warnings():
        model = LogisticRegression(max_iter=1000).fit(*drawn(TRAINED_VOTES))
    features, fixed = drawn(TESTED_VOTES)
    return float((model.predict(features) == fixed).mean())


def factor_vae_accuracy(codes: Float[np.ndarray, "n d"], factors: Int[np.ndarray, "n f"], seed: int) -> float:
    """Return how often a majority vote tells which factor was held fixed in 64 images, from the dimension whose
    variance over them is smallest beside its variance over all images. Constant dimensions have no vote.

    H. Kim and A. Mnih, Disentangling by Factorising, ICML 2018, arXiv:1802.05983.
    """
    codes = codes[:, varying(codes)]
    if codes.shape[1] == 0:
        return 0.0
    codes = codes / codes.std(0, ddof=1)
    random, groups = np.random.default_rng([seed, 2]), Groups(factors)

    def votes(count: int) -> np.ndarray:
        table = np.zeros((factors.shape[1], codes.shape[1]), np.int64)
        for factor in _fixed(random, factors.shape[1], count):
            first = random.integers(len(codes), size=(len(factor), 1)).repeat(GROUP, 1)
            chosen = groups.alike(first, factor[:, None], random)
            np.add.at(table, (factor, codes[chosen].var(1).argmin(1)), 1)
        return table

    meant = votes(TRAINED_VOTES).argmax(0)
    tested = votes(TESTED_VOTES)
    return float(tested[meant, np.arange(codes.shape[1])].sum() / tested.sum())


def _fixed(random: np.random.Generator, factors: int, count: int) -> Iterator[np.ndarray]:
    """Yield the factors that are held fixed, one for each vote, some at a time."""
    for start in range(0, count, TOGETHER):
        yield random.integers(factors, size=min(TOGETHER, count - start))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Let a classifier stop at its most steps without a word: of a code that tells nothing it may never converge."""
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield
