"""Charts of several runs, as pages show them."""

import pytest
import vl_convert

from vae_cli.reporting import charts, run_charts


@pytest.mark.parametrize(("width", "count", "is_tilted"), [(400, 3, False), (400, 8, True), (1300, 8, False)])
def test_the_names_of_parallel_axes_do_not_touch_on_a_narrow_page(width, count, is_tilted):
    axes = ["encoder.channels", "latent_dim", "optimizer.lr", "objective.free_bits", "encoder", "seed", "prior", "elbo"]
    axes = axes[1:count] + ["elbo"] if count == 3 else axes
    points = [{"run": "a", "axis": axis, "position": 0.5, "text": "3", "score": 1.0} for axis in axes]
    spec = charts.to_spec(run_charts.parallel_coordinates(points, axes, [])) | {"width": width}
    drawn = vl_convert.vegalite_to_svg(spec, vl_version=charts.vegalite_version())
    assert ("rotate(-40)" in drawn) == is_tilted and all(f">{axis}</text>" in drawn for axis in axes)


def test_a_run_that_went_astray_does_not_flatten_the_curves_of_the_others():
    wild = [-186.0, -180.0, -179.5, -179.0, -178.5, -3.5e9, -2e6]
    rows = [{"run": "a", "epoch": epoch, "value": value} for epoch, value in enumerate(wild)]
    spec = charts.to_spec(run_charts.run_curves(rows, "ELBO"))
    assert "ELBO, outliers cut off" in str(spec) and "[-186.0, -178.5]" in str(spec)
