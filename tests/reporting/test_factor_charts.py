"""The heat map of dimensions and factors."""

import numpy as np
import pytest

from vae_cli.reporting import charts
from vae_cli.reporting.factor_charts import MOST_SHOWN, heat_map, of_scores


def rows(chart):
    [found] = charts.to_spec(chart)["datasets"].values()
    return found


def test_each_cell_has_its_share_in_percent():
    shares = np.array([[0.9, 0.0], [0.126, -1e-9], [0.0, 0.5]])
    found = rows(heat_map(shares, ["shape", "x"]))
    assert [(row["dimension"], row["factor"], row["text"]) for row in found] == [
        ("z0", "shape", "90%"),
        ("z0", "x", "0%"),
        ("z1", "shape", "13%"),
        ("z1", "x", "0%"),
        ("z2", "shape", "0%"),
        ("z2", "x", "50%"),
    ]
    assert "share of each factor's entropy" in str(heat_map(shares, ["shape", "x"]).to_dict(validate=False)["layer"])
    picture = np.asarray(charts.to_png(heat_map(shares, ["shape", "x"])))
    assert picture.shape[1] > 300 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 10


def test_of_many_dimensions_those_that_tell_most_are_shown_in_their_order():
    shares = np.zeros((60, 2))
    shares[10:, 1] = np.linspace(0.1, 0.9, 50)
    chart = heat_map(shares, ["a", "b"])
    names = list(dict.fromkeys(row["dimension"] for row in rows(chart)))
    assert names == [f"z{number}" for number in range(20, 60)] and len(names) == MOST_SHOWN
    assert "40 of 60 dimensions" in str(chart.to_dict(validate=False))


def test_what_is_no_table_of_scores_is_refused():
    assert rows(of_scores({"information": [[0.5, 0.1]], "factors": ["a", "b"]}))[0]["share"] == 0.5
    for wrong in ({"information": [[0.5]], "factors": ["a", "b"]}, {"information": [], "factors": []}):
        with pytest.raises(ValueError, match="are not of"):
            of_scores(wrong)
