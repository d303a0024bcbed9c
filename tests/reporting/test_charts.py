"""Charts: what is drawn of curves and latent codes, for pages and as pictures."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from tests.support.linear_gaussian import D, linear_gaussian
from tests.support.objectives import images
from vae_cli.distributions import DiagonalNormalPosterior
from vae_cli.objectives import DIPVAE, BetaTC, FactorVAE, InfoVAE
from vae_cli.reporting import charts, run_charts


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, 3, 30])
def test_codes_of_any_dimension_and_labels_are_drawn(dim, labels):
    y = None if labels is None else np.arange(90) % labels
    picture = charts.to_png(charts.latent_codes(np.random.default_rng(0).normal(size=(90, dim)), y))
    assert picture.mode == "RGB" and len(picture.getcolors(1 << 20)) > 20


def test_codes_of_many_dimensions_are_seen_in_their_principal_components():
    values = np.random.default_rng(0).normal(size=(200, 6)) * [5, 3, 1, 1, 1, 1]
    projected, axes, names = charts._plane(values, None)
    fitted = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(axes), np.abs(fitted.components_), atol=1e-8)
    np.testing.assert_allclose(projected, values @ axes.T, atol=1e-8)
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


@pytest.mark.parametrize(
    "objective",
    [FactorVAE(latent_dim=D, hidden=[4]), BetaTC(size=9), DIPVAE(), InfoVAE()],
    ids=lambda each: type(each).__name__,
)
def test_the_terms_of_a_loss_have_curves_that_curves_png_leaves_out(objective):
    if objective.module is not None:
        objective.module.double()
    model = linear_gaussian(DiagonalNormalPosterior)
    noise = torch.randn(1, 6, objective.noise_dim(model), dtype=torch.float64)
    sums = objective(model, (images(6), None), noise, 0).sums()
    values = dict(zip(sums.names, (sums.values / sums.images).tolist()))
    curves = charts.curves([{"epoch": epoch, "split": "train", **values} for epoch in (1, 2)])
    own = set(sums.names) - {"elbo", "bound", "reconstruction", "kl", "loss"}
    assert own and own <= set(curves) and not own & set(charts.IN_PICTURE)


def test_curves_without_any_numbers_are_none():
    assert charts.curves([]) == charts.curves([record(1, "train", None)]) == {}


def test_a_picture_is_drawn_of_whatever_curves_there_are():
    for names in (["elbo"], ["loss"], list(charts.CURVES)):
        records = [{"epoch": epoch, "split": "train"} | dict.fromkeys(names, float(epoch)) for epoch in (1, 2, 3)]
        assert charts.curves_picture(charts.curves(records)).width > 300


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 100, 100_000])
def test_no_tick_lies_between_two_epochs(epochs):
    rows = [{"epoch": epoch, "value": 1.0} for epoch in (1, epochs)]
    assert 1 <= charts.epoch_axis(rows).to_dict()["axis"]["tickCount"] <= max(1, epochs - 1)


@pytest.mark.parametrize("dimensions", [1, 40, 200])
def test_the_kl_of_each_dimension_is_drawn_largest_first(dimensions):
    values = np.random.default_rng(0).exponential(size=dimensions).tolist()
    chart = charts.kl_per_dim(values)
    (rows,) = chart.to_dict()["datasets"].values()
    assert [row["kl"] for row in rows] == sorted(values, reverse=True)
    assert all(values[int(row["dimension"])] == row["kl"] for row in rows)
    assert charts.to_png(chart).height > 200


def domains(chart):
    encodings = [layer["encoding"] for layer in chart.to_dict(validate=False)["layer"]]
    return [encodings[0][name]["scale"]["domain"] for name in "xy"]


@pytest.mark.parametrize("dim", [2, 7])
def test_a_collapsed_cloud_is_a_dot_within_the_priors_border(dim):
    means = np.random.default_rng(0).normal(size=(50, dim)) * 1e-3
    for low, high in domains(charts.latent_codes(means, None, (np.zeros(dim), np.ones(dim)))):
        assert low < -2 and high > 2


def test_the_border_lies_two_standard_deviations_from_the_priors_mean_whatever_the_axes():
    mean, std = np.asarray([1.0, -2.0, 0.5]), np.asarray([1.0, 3.0, 0.2])
    np.testing.assert_allclose(np.ptp(charts._border(mean, std, np.eye(3)[:2]), axis=0), [4, 12], rtol=1e-3)
    np.testing.assert_allclose(charts._border(mean, std, np.eye(3)[:1])[:2, 0], [3, -1])
    axes = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0][:2]
    drawn = (mean + std * np.random.default_rng(1).normal(size=(100_000, 3))) @ axes.T
    border = charts._border(mean, std, axes)
    np.testing.assert_allclose(np.ptp(border, axis=0), 4 * drawn.std(0), rtol=0.02)
    np.testing.assert_allclose(border[:-1].mean(0), drawn.mean(0), atol=0.05)


def test_a_unit_of_latent_space_is_as_long_upwards_as_to_the_right():
    means = np.random.default_rng(0).normal(size=(50, 2)) * [5, 1]
    (left, right), (low, high) = domains(charts.latent_codes(means, None))
    assert right - left == pytest.approx(high - low)


@pytest.mark.parametrize(("values", "top"), [([0.001, 0.0], 1), ([30.0, 2.0], 30)])
def test_axes_of_kl_start_at_zero_and_end_at_one_nat_or_above(values, top):
    records = [{"epoch": epoch, "split": "train", "kl": kl} for epoch, kl in enumerate(values, 1)]
    curve = charts.curves(records)["kl"].to_dict(validate=False)["layer"][0]["encoding"]["y"]["scale"]
    bars = charts.kl_per_dim(values).to_dict(validate=False)["encoding"]["y"]["scale"]
    assert curve["domain"] == bars["domain"] == [0, top]


def test_every_chart_is_one_that_vega_lite_knows():
    rows = [{"run": "a", "epoch": epoch, "value": 1.0} for epoch in (1, 2)]
    points = [{"run": "a", "axis": axis, "position": 0.5, "text": "3", "score": 1.0} for axis in "xy"]
    marks = [{"axis": "x", "position": 0.5, "text": "3"}]
    some = [run_charts.run_curves(rows, "ELBO"), run_charts.parallel_coordinates(points, ["x", "y"], marks)]
    some += charts.curves([record(1, "train", -1.0)]).values()
    some += [charts.latent_codes(np.ones((3, d)), np.arange(3)) for d in (1, 2)]
    some += [charts.latent_codes(np.ones((3, d)), None, (np.zeros(d), np.ones(d))) for d in (1, 2, 3)]
    for chart in some:
        chart.to_dict(validate=True)
        assert charts.to_spec(chart)["width"] == "container"


@pytest.mark.parametrize("dim", [1, 2, 3])
def test_codes_are_colored_by_the_names_of_their_classes(dim):
    means, y = np.random.default_rng(0).normal(size=(9, dim)), np.arange(9) % 3
    for labels, names in ((y, ["circle", "square", "star"]), (np.zeros(9, int), ["circle"])):
        layers = charts.latent_codes(means, labels, names=names).to_dict(validate=False)["layer"]
        assert names in [layer["encoding"].get("color", {}).get("scale", {}).get("domain") for layer in layers]


def test_values_far_beyond_all_others_do_not_flatten_a_curve_and_are_said_to_be_cut_off():
    wild = [-186.0, -180.0, -179.5, -179.0, -178.5, -3.5e9, -2e6]
    scale, cut = axis_of(wild)
    assert scale["domain"] == [-186.0, -178.5] and cut == ", outliers cut off"
    for usual in ([-550.0, -186.0, -180.0, -179.9], [0.0, 0.0, 5.0], [-1.0], [-0.5, 9.8, 4.9, 30.0]):
        assert axis_of(usual) == ({"zero": False}, "")


def test_the_first_tenth_of_the_epochs_does_not_flatten_a_curve_and_is_said_to_be_cut_off():
    late = [-84.0 + epoch / 10 for epoch in range(18)]
    scale, cut = axis_of([-250.0, -100.0, *late])
    assert scale["domain"] == [late[0], late[-1]] and cut == ", first epochs cut off"
    assert axis_of([-85.0, -84.5, *late])[1] == "" and axis_of([-250.0, -100.0, *late[:7]])[1] == ""
    assert axis_of([-250.0, *[-80.0] * 19])[1] == ""  # an axis has a length
    records = [
        {"epoch": epoch, "split": "train", "kl": kl} for epoch, kl in enumerate([180.0, 40.0, *[29.0, 30.0] * 9], 1)
    ]
    layer = charts.curves(records)["kl"].to_dict(validate=False)["layer"][0]
    assert layer["encoding"]["y"]["scale"]["domain"] == [0, 30.0]


def axis_of(values):
    scale, cut = charts.nats_axis([{"epoch": epoch, "value": value} for epoch, value in enumerate(values, start=1)])
    return scale.to_dict(), cut
