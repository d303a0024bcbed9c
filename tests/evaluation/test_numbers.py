"""Means, accuracies and their standard errors are SciPy's."""

import numpy as np
import pytest
import scipy.stats
import torch

from vae_cli.evaluation import numbers


def test_a_mean_has_scipys_standard_error_and_one_value_has_none():
    values = torch.tensor([1.0, 2.5, -4.0, 3.0], dtype=torch.float64)
    found = numbers.mean(values)
    assert found["value"] == pytest.approx(0.625) and found["n"] == 4
    assert found["stderr"] == pytest.approx(scipy.stats.sem(values.numpy()))
    assert numbers.mean(values[:1]) == {"value": 1.0, "stderr": None, "n": 1}


def test_an_accuracy_has_the_standard_error_of_a_binomial_share():
    found = numbers.accuracy(0.3, 50)
    assert found["stderr"] == pytest.approx(scipy.stats.binom(50, 0.3).std() / 50) and found["n"] == 50
    assert numbers.accuracy(1.0, 9) == {"value": 1.0, "stderr": 0.0, "n": 9}


def test_numbers_of_numpy_become_those_of_json():
    found = numbers.number(np.float64(0.5), 3, np.float64(0.25))
    assert found == {"value": 0.5, "stderr": 0.25, "n": 3} and type(found["value"]) is type(found["stderr"]) is float
