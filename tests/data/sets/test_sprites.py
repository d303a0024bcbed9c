"""Sprites drawn from their factors."""

from typing import get_type_hints

import numpy as np
import pytest

from vae_cli.constraints import accepts
from vae_cli.data import Sprites
from vae_cli.data.sets.sprites import SHAPES

SIZES = (3, 6, 8, 12, 12)


@pytest.fixture(scope="module")
def source():
    return Sprites().load()


def _areas(source, name):
    """Mean number of white pixels for each value of a factor."""
    white = source.train.values.sum((1, 2, 3))
    column = source.train.factors[:, source.factor_names.index(name)]
    return [white[column == value].mean() for value in range(column.max() + 1)]


def _is_each_different(values):
    rows = np.packbits(values.reshape(len(values), -1), axis=1)
    return len(np.unique(rows, axis=0)) == len(rows)


def test_there_is_one_binary_image_for_each_combination_of_factors(source):
    images = source.train
    assert images.values.shape == (20736, 1, 32, 32) and set(np.unique(images.values)) == {0, 1}
    assert source.support == "binary" and source.factor_names == ("shape", "scale", "rotation", "x", "y")
    assert images.factors.shape == (20736, 5) and images.factors.dtype == np.int64 and images.labels is None
    assert len(np.unique(np.ravel_multi_index(images.factors.T, SIZES))) == len(images)


def test_no_two_images_are_the_same(source):
    assert _is_each_different(source.train.values)


def test_x_and_y_move_a_shape_by_whole_pixels_and_never_over_the_border(source):
    images = source.train.values[:, 0].reshape(*SIZES, 32, 32)
    first = images[..., 0, 0, :, :]
    for x, y in ((11, 0), (0, 11), (5, 7)):
        assert (images[..., x, y, :, :] == np.roll(first, (y, x), (-2, -1))).all()
    assert (images.sum((-2, -1)) == first.sum((-2, -1))[..., None, None]).all()


def test_scale_grows_a_shape_and_rotation_keeps_its_area(source):
    areas = np.sqrt(_areas(source, "scale"))
    assert np.allclose(areas / areas[-1], np.linspace(0.5, 1, 6), atol=0.03)
    assert np.ptp(_areas(source, "rotation")) < 0.06 * np.mean(_areas(source, "rotation"))


def test_the_shapes_have_the_areas_of_a_square_an_ellipse_and_a_heart():
    drawn = Sprites(image_size=128)
    radius = 10 / 32 * 128
    areas = [drawn._shape(name, 1.0, 0.0).sum() / radius**2 for name in SHAPES]
    # The heart's curve (x² + y² − 1)³ = x² y³ bounds an area of 3.66196, counted on a fine grid.
    assert np.allclose(areas, [2, np.pi / 2, 3.66196 / 1.25**2], rtol=0.025)


def test_a_square_looks_the_same_after_a_quarter_of_a_turn_and_an_ellipse_after_half_of_one():
    drawn = Sprites(image_size=64)
    for name, period in (("square", np.pi / 2), ("ellipse", np.pi)):
        one, other, half = (drawn._shape(name, 0.9, angle) for angle in (0.3, 0.3 + period, 0.3 + period / 2))
        assert (one == other).all() and (one != half).any()


def test_colors_are_bytes_with_smooth_edges_and_six_hues():
    source = Sprites(color=True).load()
    values, factors = source.train.values, source.train.factors
    assert values.shape == (31104, 3, 32, 32) and values.dtype == np.uint8 and source.support == "levels256"
    assert source.factor_names[0] == "hue" and factors.max(0).tolist() == [5, 2, 5, 7, 5, 5]
    assert len(np.unique(values)) > 30
    strongest = [tuple((values[factors[:, 0] == hue].max((0, 2, 3)) // 255).tolist()) for hue in range(6)]
    assert strongest == [(1, 0, 0), (1, 1, 0), (0, 1, 0), (0, 1, 1), (0, 0, 1), (1, 0, 1)]
    one = values[:5184].max(1)
    assert len(np.unique(one.reshape(len(one), -1), axis=0)) == len(one)


@pytest.mark.parametrize("size", [33, 48, 64])
def test_larger_images_show_the_same_factors(size):
    source = Sprites(image_size=size).load()
    assert source.train.values.shape == (20736, 1, size, size) and _is_each_different(source.train.values[::7])


def test_the_splits_are_at_random_and_always_the_same():
    data, again = Sprites().splits(), Sprites().splits()
    assert (len(data.train), len(data.validation), len(data.test)) == (14930, 1659, 4147)
    assert data.facts.factor_names == ("shape", "scale", "rotation", "x", "y") and data.facts.factor_sizes == SIZES
    assert data.facts == again.facts and data.facts.classes == 0
    assert (data.test.factors == again.test.factors).all()
    every = np.concatenate([split.factors.numpy() for split in (data.train, data.validation, data.test)])
    assert len(np.unique(np.ravel_multi_index(every.T, SIZES))) == 20736


def test_the_first_images_of_a_split_are_as_unlike_as_all():
    data = Sprites().splits()
    for split in (data.train, data.validation, data.test):
        first, every = split.factors[:400].double(), split.factors.double()
        assert (first.mean(0) - every.mean(0)).abs().max() < 4 * every.std(0).max() / 20
        assert (first.std(0) / every.std(0)).min() > 0.85
        areas = split.images.double().sum((1, 2, 3))
        assert abs(areas[:400].mean() - areas.mean()) < 2 * areas.std() / 20


def test_sizes_that_are_too_small_or_too_large_are_refused():
    hints = get_type_hints(Sprites.__init__, include_extras=True)
    assert [accepts(hints["image_size"], size) for size in (31, 32, 128, 129)] == [False, True, True, False]
