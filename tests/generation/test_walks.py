"""Walks through latent space: where their points lie, what is drawn of them, and what vae-sample refuses."""

import numpy as np
import pytest
import scipy.spatial
import scipy.stats
import torch

from tests.support.generation import close, drawn, model_of, used_and_test_images
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.data import Split
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    FlowPrior,
    LearnedNormalPrior,
    MixtureOfNormalsPrior,
    StandardNormalPrior,
)
from vae_cli.errors import ConfigError
from vae_cli.generation import walks


def test_an_interpolation_leads_straight_from_one_test_images_reconstruction_to_the_others(run, tmp_path):
    archive = drawn(run, tmp_path, "mode=interpolate", "between=[3,17,4]", "steps=5")
    model, x, _ = used_and_test_images(run)
    means = model.encode(x[[3, 17, 4]]).mean
    assert archive["images"].shape == (10, 1, 8, 8) and archive["z"].shape == (10, 2)
    close(archive["images"][[0, 4, 5, 9]], model.likelihood.image(model.reconstruct(x[[3, 17, 17, 4]])))
    close(archive["z"][1], 0.75 * means[0] + 0.25 * means[1])
    close(archive["images"][7], model.image((means[1:2] + means[2:]) / 2)[0])


def test_an_interpolation_of_draws_has_the_samples_at_its_ends(run, tmp_path):
    archive = drawn(run, tmp_path, "mode=interpolate", "n=3", "steps=4", "seed=5")
    plain = drawn(run, tmp_path, "n=6", "seed=5")
    np.testing.assert_allclose(archive["images"].reshape(3, 4, 1, 8, 8)[:, [0, 3]].reshape(6, 1, 8, 8), plain["images"])
    assert len(drawn(run, tmp_path, "mode=interpolate")["images"]) == 8 * 11


def test_a_traversal_varies_one_dimension_a_row_over_three_deviations_most_active_first(run, tmp_path):
    archive = drawn(run, tmp_path, "mode=traverse", "steps=7")
    model, x, _ = used_and_test_images(run)
    variance = model.encode(x).mean.numpy().var(0)
    z, order = archive["z"].reshape(2, 7, 2), np.argsort(-variance)
    for row, dimension in enumerate(order):
        np.testing.assert_allclose(z[row, :, dimension], np.arange(-3, 4), atol=1e-6)
        assert not z[row, :, 1 - dimension].any()
    around = drawn(run, tmp_path, "mode=traverse", "around=9", "steps=3", "n=1")
    close(around["z"][1], model.encode(x[9:10]).mean[0])
    close(around["images"][1], model.likelihood.image(model.reconstruct(x[9:10]))[0])
    assert len(around["images"]) == 3


def test_a_traversals_captions_name_dimension_and_variance():
    model = model_of(DiagonalNormalPosterior(3), LearnedNormalPrior(3))
    with torch.no_grad():
        model.prior.loc.copy_(torch.tensor([1.0, 2.0, 3.0]))
        model.prior.log_scale.copy_(torch.tensor([0.0, 1.0, 2.0]))
    means = torch.tensor([[0.0, 5.0, 1.0], [0.0, -5.0, 2.0]])
    walk = walks.traverse(model, means, 3)
    assert walk.rows == ["z1  var 25.00", "z2  var 0.25", "z0  var 0.00"]
    assert walk.columns == ["-3.0 sd", "+0.0 sd", "+3.0 sd"]
    close(walk.z[1, 2], torch.tensor([1.0, 2.0, 3 + 3 * np.exp(2)], dtype=torch.float32))


def test_a_manifold_lies_at_the_priors_quantiles_and_grows_to_the_right_and_upwards(run, tmp_path):
    archive = drawn(run, tmp_path, "mode=manifold", "steps=4")
    z, ppf = archive["z"].reshape(4, 4, 2), scipy.stats.norm.ppf([1 / 8, 3 / 8, 5 / 8, 7 / 8])
    np.testing.assert_allclose(z[..., 0], np.tile(ppf, (4, 1)), atol=1e-5)
    np.testing.assert_allclose(z[..., 1], np.tile(ppf[::-1, None], (1, 4)), atol=1e-5)
    model, _, _ = used_and_test_images(run)
    close(archive["images"], model.image(torch.from_numpy(archive["z"])))


def test_a_latent_line_is_a_manifold_of_one_row():
    walk = walks.manifold(model_of(DiagonalNormalPosterior(1), StandardNormalPrior(1)), 5)
    assert walk.z.shape == (1, 5, 1) and (walk.axis, walk.rows) == ("z0", [])


def test_a_manifold_names_its_axes():
    walk = walks.manifold(model_of(DiagonalNormalPosterior(2), StandardNormalPrior(2)), 2)
    assert walk.axis == "z0" and walk.columns == ["-0.67", "+0.67"] and walk.rows == ["z1 +0.67", "z1 -0.67"]


@pytest.mark.parametrize("kind", ["mixture", "flow"])
def test_quantiles_and_moments_of_a_prior_without_closed_form_are_those_of_its_density(kind):
    torch.manual_seed(0)
    prior = MixtureOfNormalsPrior(1, 3) if kind == "mixture" else FlowPrior(1, "nsf")
    model = model_of(DiagonalNormalPosterior(1), prior)
    at = torch.linspace(-12, 12, 200_001)[:, None]
    with torch.no_grad():
        density = model.latent_prior().log_prob(at).exp().double().numpy()
        found_mean, found_std = (float(moment) for moment in walks.prior_moments(model))
    x, step = at[:, 0].double().numpy(), 24 / 200_000
    mean = (density * x).sum() * step
    variance, fourth = ((density * (x - mean) ** power).sum() * step for power in (2, 4))
    draws = walks.PRIOR_DRAWS
    assert found_mean == pytest.approx(mean, abs=4 * np.sqrt(variance / draws))
    assert found_std**2 == pytest.approx(variance, abs=4 * np.sqrt((fourth - variance**2) / draws))
    places = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    below = [density[x <= float(q)].sum() * step for q in walks.prior_quantiles(model, places)[:, 0]]
    np.testing.assert_allclose(below, places, atol=4 * 0.5 / 100)


def test_walks_of_a_conditional_model_keep_the_labels_and_name_one_that_all_points_have(labeled, tmp_path, capsys):
    model, x, y = used_and_test_images(labeled)
    archive = drawn(labeled, tmp_path, "mode=interpolate", "between=[0,1]", "steps=4")
    assert archive["labels"].tolist() == [y[0]] * 2 + [y[1]] * 2
    close(archive["images"][[0, 3]], model.likelihood.image(model.reconstruct(x[:2], y[:2])))
    archive = drawn(labeled, tmp_path, "mode=traverse", "label=4", "steps=3")
    assert archive["labels"].tolist() == [4] * 6
    assert drawn(labeled, tmp_path, "mode=traverse", "around=1", "steps=3")["labels"].tolist() == [int(y[1])] * 6
    capsys.readouterr()
    assert drawn(labeled, tmp_path, "mode=manifold", "label=2", "steps=3")["labels"].tolist() == [2] * 9
    assert "3 rows of 3 images of label 2 from" in capsys.readouterr().out
    pairs = drawn(labeled, tmp_path, "mode=interpolate", "n=3", "steps=2")["labels"]
    assert pairs.tolist() == [0, 0, 1, 1, 2, 2] and "of label" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["mode=walk"], "mode accepts prior, interpolate, traverse, manifold or levels"),
        (["sampler=uniform"], "sampler accepts prior, gmm or aggregate"),
        (["mode=interpolate", "between=3"], "between accepts null or a list"),
        (["mode=interpolate", "between=[3]"], "two or more"),
        (["mode=interpolate", "between=[3,-1]"], "between accepts"),
        (["mode=interpolate", "between=[0,9999]"], "numbered 0 to 179"),
        (["mode=traverse", "around=9999"], "numbered 0 to 179"),
        (["between=[3,17]"], "mode=prior takes no between; it goes with mode=interpolate"),
        (["steps=5"], "mode=prior takes no steps"),
        (["path=slerp"], "path=slerp: mode=prior takes no path; it goes with mode=interpolate"),
        (["mode=interpolate", "path=arc"], "path accepts linear or slerp"),
        (["mode=traverse", "sampler=gmm"], "takes no sampler"),
        (["mode=manifold", "n=5"], "takes no n"),
        (["mode=interpolate", "steps=1"], "steps accepts null or an integer from 2"),
        (["components=3"], "goes with sampler=gmm"),
        (["sampler=gmm", "temperature=0.5"], "goes with sampler=prior"),
        (["sampler=gmm", "components=5000"], "training codes to fit them to"),
        (["mode=interpolate", "between=[0,1]", "sampler=gmm"], "leave out one of the two"),
        (["mode=manifold", "label=3"], "knows no labels"),
        (["mode=manifold", "steps=500"], "a grid holds at most"),
        (["mode=interpolate", "n=3000000"], "not 3000000 rows of 11"),
        (["mode=traverse", "around=999"], "around=999: the test split"),
    ],
)
def test_what_a_mode_cannot_do_is_refused(settings, message, run, tmp_path):
    with pytest.raises(ConfigError, match=message):
        sample.run(compose.compose("sample", [f"checkpoint={run}", f"output={tmp_path / 'x.png'}", *settings]))
    assert not list(tmp_path.iterdir())


def test_an_arc_in_one_dimension_is_refused():
    with pytest.raises(ConfigError, match="latent_dim=1; use path=linear"):
        walks.sphere_of(model_of(DiagonalNormalPosterior(1), StandardNormalPrior(1)), None)


def test_a_manifold_of_more_dimensions_is_refused_with_the_fix():
    with pytest.raises(ConfigError, match="latent_dim=3; use mode=traverse"):
        walks.manifold(model_of(DiagonalNormalPosterior(3), StandardNormalPrior(3)), 5)


def test_a_conditional_models_walk_shows_one_label(labeled, tmp_path):
    for settings, message in [
        (["mode=manifold", "label=all"], "shows one label"),
        (["mode=interpolate", "between=[0,1]", "label=3"], "the images' own labels"),
        (["mode=traverse", "label=11"], "labels are 0 to 9"),
    ]:
        with pytest.raises(ConfigError, match=message):
            drawn(labeled, tmp_path, *settings)


def test_a_set_of_many_images_is_spread_within_its_bounds():
    huge = Split(torch.zeros(1, 1, 1, 1), None, 1.0, rows=torch.zeros(16_777_220, dtype=torch.long))
    assert len(huge.spread(1000)) == 1000


# Arcs


def arc(first, second, steps=101):
    """The points of an arc about the origin, in double precision."""
    t = torch.linspace(0, 1, steps, dtype=torch.float64)
    return walks.slerp(torch.tensor(first, dtype=torch.float64), torch.tensor(second, dtype=torch.float64), t).numpy()


def test_an_arc_turns_evenly_as_a_rotation_of_scipy_does_and_its_norm_goes_straight():
    rng = np.random.default_rng(0)
    first, second = rng.standard_normal((2, 5, 3))
    points = arc(first, second)
    t = np.linspace(0, 1, 101)
    for row, a, b in zip(points, first, second):
        turn = scipy.spatial.transform.Rotation.align_vectors(b[None], a[None])[0]  # the shortest one
        unit = scipy.spatial.transform.Rotation.from_rotvec(t[:, None] * turn.as_rotvec()).apply(a / np.linalg.norm(a))
        lengths = (1 - t) * np.linalg.norm(a) + t * np.linalg.norm(b)
        np.testing.assert_allclose(row, unit * lengths[:, None], atol=1e-9)


def test_an_arc_of_unit_vectors_is_shoemakes():
    rng = np.random.default_rng(1)
    a, b = (v / np.linalg.norm(v) for v in rng.standard_normal((2, 40)))
    angle, t = np.arccos(a @ b), np.linspace(0, 1, 11)[:, None]
    published = (np.sin((1 - t) * angle) * a + np.sin(t * angle) * b) / np.sin(angle)
    np.testing.assert_allclose(arc(a[None], b[None], 11)[0], published, atol=1e-12)


@pytest.mark.parametrize("apart", [0.0, 1e-16, 1e-9, 1e-5])
def test_an_arc_of_ends_in_nearly_one_direction_is_the_straight_line(apart):
    a, b = np.array([3.0, 4.0, 0.0]), 2 * np.array([3.0, 4.0, apart])
    t = np.linspace(0, 1, 101)[:, None]
    np.testing.assert_allclose(arc(a[None], b[None])[0], (1 - t) * a + t * b, atol=3 * apart + 1e-12)


@pytest.mark.parametrize("b", [[-6.0, -8.0, 0.0], [-6.0, -8.0, 1e-9]])
def test_opposite_ends_are_joined_by_a_half_circle(b):
    points = arc([[3.0, 4.0, 0.0]], [b])[0]
    np.testing.assert_allclose(points[[0, -1]], [[3.0, 4.0, 0.0], b], atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(points, axis=1), np.linspace(5, 10, 101))
    np.testing.assert_allclose(points[50], [0, 0, 7.5], atol=1e-6)  # the axis that is orthogonal to the ends


def test_an_end_at_the_center_is_reached_on_a_straight_line():
    t = np.linspace(0, 1, 101)[:, None]
    np.testing.assert_allclose(arc([[0.0, 0.0]], [[3.0, -4.0]])[0], t * [3, -4], atol=1e-12)
    np.testing.assert_allclose(arc([[3.0, -4.0]], [[0.0, 0.0]])[0], (1 - t) * [3, -4], atol=1e-12)
    assert not arc([[0.0, 0.0]], [[0.0, 0.0]]).any()


def test_a_straight_line_between_draws_loses_half_the_squared_norm_and_an_arc_none():
    dim, rows = 50, 4000
    ends = torch.randn(2, rows, dim, generator=torch.Generator().manual_seed(0))
    sphere = torch.zeros(dim), torch.ones(dim)
    for path, share in ((None, 0.5), (sphere, 1.0)):
        middle = walks.interpolate(*ends, steps=3, sphere=path).z[:, 1].square().sum(-1)
        assert abs(middle.mean() / dim - share) < 4 * middle.std() / dim / rows**0.5 + 0.01 * (share == 1)


def test_an_arc_is_about_the_priors_mean_in_units_of_its_deviation(run, tmp_path):
    model = model_of(DiagonalNormalPosterior(3), LearnedNormalPrior(3))
    with torch.no_grad():
        model.prior.loc.copy_(torch.tensor([1.0, 2.0, 3.0]))
        model.prior.log_scale.copy_(torch.tensor([0.0, 1.0, 2.0]))
    center, scale = model.prior.loc.detach(), model.prior.log_scale.detach().exp()
    first, second = center + scale * torch.tensor([[2.0, 0, 0]]), center + scale * torch.tensor([[0, 2.0, 0]])
    walk = walks.interpolate(first, second, 3, sphere=walks.sphere_of(model, None))
    close(walk.z[0], torch.cat([first, center + scale * torch.tensor([[2**0.5, 2**0.5, 0]]), second]))
    archive = drawn(run, tmp_path, "mode=interpolate", "between=[3,17]", "path=slerp", "steps=5")
    used, x, _ = used_and_test_images(run)
    means = used.encode(x[[3, 17]]).mean
    close(archive["z"][[0, 4]], means)
    lengths = means.norm(dim=1)
    close(torch.as_tensor(archive["z"]).norm(dim=1), torch.lerp(*lengths, torch.linspace(0, 1, 5)))


def test_the_arcs_of_a_conditional_model_are_about_its_priors_mean_given_the_labels(labeled, tmp_path, monkeypatch):
    given = {0: (0.0, 1.0), 1: (1.0, 3.0), 2: (5.0, 2.0)}
    monkeypatch.setattr(walks, "prior_moments", lambda _, label: tuple(torch.full((2,), m) for m in given[label]))
    model = used_and_test_images(labeled)[0]
    center, scale = walks.sphere_of(model, (torch.tensor([0, 1, 2]), torch.tensor([1, 1, 0])))
    assert center[:, 0].tolist() == [0.5, 1, 2.5] and scale[:, 1].tolist() == [2, 3, 1.5]
