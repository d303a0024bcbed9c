"""Cars3D."""

import numpy as np
import pytest

from tests.support.archives import put, trust
from tests.support.factor_archives import cars3d
from tests.support.files import error_of
from vae_cli.data import Cars3D
from vae_cli.data.sets.cars3d import ARCHIVE, CARS


@pytest.fixture
def placed(tmp_path, monkeypatch):
    def place(content, **options):
        trust(monkeypatch, Cars3D, {ARCHIVE: content})
        put(Cars3D, tmp_path, {ARCHIVE: content})
        return Cars3D(str(tmp_path), **options)

    monkeypatch.setattr(Cars3D, "cars", 2)
    return place


def test_each_image_has_its_elevation_azimuth_and_car_whatever_the_order_of_the_archive(placed):
    content, images = cars3d(2)
    source = placed(content, image_size=8).load()
    factors = source.train.factors
    assert source.train.values.shape == (192, 3, 8, 8) and factors.max(0).tolist() == [3, 23, 1]
    for number in (0, 50, 191):
        elevation, azimuth, car = factors[number]
        expected = images[car, elevation, azimuth].transpose(2, 0, 1)
        assert np.array_equal(source.train.values[number], expected)
    assert source.factor_names == ("elevation", "azimuth", "object") and source.support == "levels256" and CARS == 183
    assert placed(content, image_size=4).load().train.values.shape == (192, 3, 4, 4)


def test_an_archive_that_lacks_a_car_or_is_cut_short_is_named(placed):
    for content in (cars3d(2, missing=True)[0], cars3d(2)[0][:1000]):
        assert f"{ARCHIVE} cannot be read" in error_of(placed(content, image_size=8).load)
