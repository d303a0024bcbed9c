"""Numbers behind the charts of rows."""

import numpy as np
import pytest
from sklearn.metrics import r2_score

from vae_cli.data.columns import Column
from vae_cli.reporting import value_charts


def test_correlations_are_over_the_rows_in_which_both_columns_are_there():
    pandas = pytest.importorskip("pandas")
    x = np.random.default_rng(0).normal(size=(300, 4)) @ np.random.default_rng(1).normal(size=(4, 4)) + 1e3
    x[np.random.default_rng(2).random(x.shape) < 0.3] = np.nan
    np.testing.assert_allclose(value_charts._correlation(x), pandas.DataFrame(x).corr(), atol=1e-8)


def test_what_is_unexplained_is_one_minus_the_share_that_scikit_learn_finds_explained():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 4)) * [1, 5, 0.2, 3]
    shown = x + random.normal(size=(200, 4)) * [0.5, 1, 0.1, 4]
    columns = [Column("a", "real"), Column("b", "categorical", ("x", "y", "z"))]
    shares = value_charts.unexplained_shares(x, shown, columns)
    assert shares[0] == pytest.approx(1 - r2_score(x[:, 0], shown[:, 0]))
    assert shares[1] == pytest.approx(1 - r2_score(x[:, 1:], shown[:, 1:], multioutput="variance_weighted"))
    x[::3, 0] = np.nan
    there = np.isfinite(x[:, 0])
    shares = value_charts.unexplained_shares(x, shown, columns)
    assert shares[0] == pytest.approx(1 - r2_score(x[there, 0], shown[there, 0]))


def test_marginals_are_shares_of_what_is_there_and_of_many_categories_the_frequent_ones():
    columns = [
        Column("n", "real"),
        Column("kind", "categorical", tuple("abcdefghijkl")),
        Column("is", "binary", ("n", "y")),
    ]
    random = np.random.default_rng(0)
    kinds = np.eye(12)[random.integers(0, 12, 500)]
    data = np.column_stack([random.normal(size=500), kinds, random.random(500) < 0.25])
    data[::5, 0] = np.nan
    cells = value_charts.marginals(data, data, columns, "training data").concat
    rows = [[row for row in cell.data["values"] if row["kind"] == "training data"] for cell in cells]
    assert sum(row["share"] for row in rows[0][:-1]) == pytest.approx(1, abs=0.02)
    assert [row["share"] for row in rows[1]] == pytest.approx(np.sort(kinds.mean(0))[:-9:-1])
    assert cells[1].title.subtitle == "8 of 12 values"
    assert {row["value"]: row["share"] for row in rows[2]} == pytest.approx(
        {"n": 1 - data[:, -1].mean(), "y": data[:, -1].mean()}
    )


def test_names_of_categories_are_told_apart():
    names = [f"category number {n}" for n in range(12)]
    assert value_charts._without_prefix(names) == [f"…{n}" for n in range(12)]
    assert value_charts._without_prefix(["a", "b"]) == ["a", "b"]
    assert len(set(value_charts._without_prefix([f"{n} is a rather long name" for n in range(5)]))) == 5
    assert len(set(value_charts._without_prefix([f"x{'y' * 30}{n}z" for n in range(5)]))) == 5
