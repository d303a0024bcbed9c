"""Numbers behind the charts of rows."""

import numpy as np
import pytest

from vae_cli.reporting import value_charts


def test_correlations_are_over_the_rows_in_which_both_columns_are_there():
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(300, 4)) @ np.random.default_rng(1).normal(size=(4, 4)) + 1e3
    x[np.random.default_rng(2).random(x.shape) < 0.3] = np.nan
    np.testing.assert_allclose(value_charts._correlation(x), pandas.DataFrame(x).corr(), atol=1e-8)
