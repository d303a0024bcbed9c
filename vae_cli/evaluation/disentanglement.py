"""The disentanglement scores of codes whose factors of variation are known, each with the variant that it is of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from vae_cli.errors import DataError, shortened
from vae_cli.evaluation import factor_information, factor_prediction
from vae_cli.evaluation.factor_prediction import Trees
from vae_cli.evaluation.numbers import accuracy, number

FEWEST = 100  # images
MOST_BIAS = 0.05  # of a factor's entropy, above which mutual information is said to be biased
STEPS = 3  # besides one for each factor and one for each dimension


def scores(
    codes: Float[np.ndarray, "n d"],
    factors: Int[np.ndarray, "n f"],
    names: Sequence[str],
    seed: int,
    trees: Trees = "random_forest",
    report: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """Return the scores by name, with the variant of each and the share of each factor that each dimension tells.

    Args:
        codes: of N images.
        factors: the values of F factors, from 0 on.
        names: of the factors.
        seed: of which images predictors are trained on, and of what they draw.
        trees: that DCI is of.
        report: called after each of `STEPS` + F + D steps, with as many factors as vary.

    Raises:
        DataError: if there are fewer than 100 images, two factors that vary, or two dimensions.
    """
    varies = (factors != factors[:1]).any(0)
    left_out = [name for name, is_kept in zip(names, varies) if not is_kept]
    names = [name for name, is_kept in zip(names, varies) if is_kept]
    check(len(codes), len(names), codes.shape[1])
    factors, codes = factors[:, varies], codes.astype(np.float64)
    count, entropy = len(codes), factor_information.entropies(factors)
    gaps, gap_errors, error = factor_information.gaps_with_errors(codes, factors)
    information = factor_information.mutual_information(codes, factors)
    bias = float((factor_information.information_bias(codes, factors) / entropy).max())
    report()
    train, test = factor_prediction.divided(codes, factors, seed)
    importance, accuracies = factor_prediction.importances(train, test, trees, seed, report)
    separation = factor_prediction.separation(train, test, seed, report)
    beta_vae = factor_prediction.beta_vae_accuracy(codes, factors, seed)
    report()
    factor_vae = factor_prediction.factor_vae_accuracy(codes, factors, seed)
    report()
    tested = len(test.codes)
    result: dict[str, Any] = {
        "variant": _variant(trees, len(train.codes), tested, left_out),
        "mig": number(gaps.mean(), count, error),
        "dci_disentanglement": number(factor_prediction.disentanglement(importance), tested),
        "dci_completeness": number(factor_prediction.completeness(importance), tested),
        "dci_informativeness": number(accuracies.mean(), tested, _error_of_mean(accuracies, tested)),
        "sap": number(factor_prediction.separated_attribute_predictability(separation), tested),
        "modularity": number(factor_information.modularity(information), count),
        "beta_vae_score": accuracy(beta_vae, factor_prediction.TESTED_VOTES),
        "factor_vae_score": accuracy(factor_vae, factor_prediction.TESTED_VOTES),
        "mig_by_factor": {name: number(gap, count, each) for name, gap, each in zip(names, gaps, gap_errors)},
        "informativeness_by_factor": {name: number(share, tested) for name, share in zip(names, accuracies)},
        "biased": bias > MOST_BIAS,
        "information_bias": bias,
        "factors": names,
        "information": (information / entropy).tolist(),
        "importance": importance.tolist(),
    }
    return result


def check(images: int, factors: int, dimensions: int) -> None:
    """Raise DataError if there are fewer than 100 images, two factors that vary, or two dimensions."""
    if images < FEWEST:
        raise DataError(f"disentanglement is measured on {FEWEST} images at least, and these are {images}")
    if factors < 2:
        raise DataError("disentanglement is of two factors at least, and fewer vary in these images")
    if dimensions < 2:
        raise DataError("disentanglement is of two latent dimensions at least, and the model has one")


def _variant(trees: Trees, trained: int, tested: int, left_out: Sequence[str]) -> dict[str, Any]:
    """Return what the scores are of, where repositories differ."""
    votes = f"{factor_prediction.TRAINED_VOTES:,} and {factor_prediction.TESTED_VOTES:,} to test"
    variant = {
        "mutual_information": f"{factor_information.BINS} bins of equal width",
        "dci": factor_prediction.TREES[trees],
        "sap": "linear SVM, C = 0.01, balanced classes; accuracy",
        "predictors": f"trained on {trained:,} images, tested on {tested:,}",
        "beta_vae_score": f"logistic regression; {votes}, of {factor_prediction.GROUP} pairs",
        "factor_vae_score": f"{votes}, of {factor_prediction.GROUP} images; only constant dimensions have no vote",
    }
    return variant | ({"left_out": f"factors that do not vary: {shortened(left_out)}"} if left_out else {})


def _error_of_mean(accuracies: np.ndarray, tested: int) -> float:
    """Return the standard error of the mean of accuracies on the same images, as if they were independent."""
    return float(np.sqrt((accuracies * (1 - accuracies)).sum() / tested) / len(accuracies))
