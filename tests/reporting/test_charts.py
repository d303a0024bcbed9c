"""Charts: what is drawn of curves and latent codes, for pages and as pictures."""

import numpy as np
import pytest
from sklearn.decomposition import PCA

from vae_cli.reporting import charts


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, 3, 30])
def test_codes_of_any_dimension_and_labels_are_drawn(dim, labels):
    y = None if labels is None else np.arange(90) % labels
    picture = charts.to_png(charts.latent_codes(np.random.default_rng(0).normal(size=(90, dim)), y))
    assert picture.mode == "RGB" and len(picture.getcolors(1 << 20)) > 20


def test_codes_of_many_dimensions_are_seen_in_their_principal_components():
    values = np.random.default_rng(0).normal(size=(200, 6)) * [5, 3, 1, 1, 1, 1]
    projected, names = charts._plane(values)
    fitted = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(projected), np.abs(fitted.transform(values)), atol=1e-8)
    assert f"{fitted.explained_variance_ratio_[0]:.0%}" in names[0]


def test_a_single_code_is_drawn():
    assert charts.to_png(charts.latent_codes(np.ones((1, 5)), None)).mode == "RGB"


def test_curves_are_thinned_evenly_and_keep_their_ends():
    rows = charts.thinned([{"epoch": epoch, "value": 0} for epoch in range(5, 12_000, 7)], 100)
    epochs = [row["epoch"] for row in rows]
    assert len(rows) == 100 and epochs[0] == 5 and epochs[-1] == 11_996
    assert np.ptp(np.diff(epochs)) <= 7
    assert charts.thinned(rows, 100) == rows


def record(epoch, split, elbo, **more):
    return {"epoch": epoch, "step": epoch, "split": split, "elbo": elbo, "bound": elbo, **more}


def test_curves_are_of_the_quantities_that_are_there_with_a_line_for_each_split():
    records = [record(epoch, split, -10.0 * epoch) for epoch in (1, 2) for split in ("train", "validation")]
    assert list(charts.curves(records)) == ["elbo"]
    records += [record(2, "test", -9.0) | {"bound": -8.0}, record(2, "train", float("nan"), lr="many")]
    curves = charts.curves(records)
    assert list(curves) == ["elbo", "bound"]
    (values,) = charts.to_spec(curves["elbo"])["datasets"].values()
    assert [(row["epoch"], row["split"], row["value"]) for row in values] == [
        *((1, "train", -10.0), (1, "validation", -10.0), (2, "train", -20.0), (2, "validation", -20.0)),
        (2, "test", -9.0),
    ]


def test_curves_without_any_numbers_are_none():
    assert charts.curves([]) == charts.curves([record(1, "train", None)]) == {}


def test_a_picture_is_drawn_of_whatever_curves_there_are():
    for names in (["elbo"], ["loss"], list(charts.CURVES)):
        records = [{"epoch": epoch, "split": "train"} | dict.fromkeys(names, float(epoch)) for epoch in (1, 2, 3)]
        assert charts.curves_picture(charts.curves(records)).width > 300


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100, 100_000])
def test_no_tick_lies_between_two_epochs(epochs):
    rows = [{"epoch": epoch, "value": 1.0} for epoch in (1, epochs)]
    assert 1 <= charts._epochs(rows).to_dict()["axis"]["tickCount"] <= max(1, epochs - 1)


@pytest.mark.parametrize("dimensions", [1, 40, 200])
def test_the_kl_of_each_dimension_is_drawn_largest_first(dimensions):
    values = np.random.default_rng(0).exponential(size=dimensions).tolist()
    chart = charts.kl_per_dim(values)
    (rows,) = chart.to_dict()["datasets"].values()
    assert [row["kl"] for row in rows] == sorted(values, reverse=True)
    assert all(values[int(row["dimension"])] == row["kl"] for row in rows)
    assert charts.to_png(chart).height > 200


def test_every_chart_is_one_that_vega_lite_knows():
    rows = [{"run": "a", "epoch": epoch, "value": 1.0} for epoch in (1, 2)]
    points = [{"run": "a", "axis": axis, "position": 0.5, "text": "3", "score": 1.0} for axis in "xy"]
    marks = [{"axis": "x", "position": 0.5, "text": "3"}]
    some = [charts.run_curves(rows, "ELBO"), charts.parallel_coordinates(points, ["x", "y"], marks)]
    some += charts.curves([record(1, "train", -1.0)]).values()
    some += [charts.latent_codes(np.ones((3, d)), np.arange(3)) for d in (1, 2)]
    for chart in some:
        chart.to_dict(validate=True)
        assert charts.to_spec(chart)["width"] == "container"
