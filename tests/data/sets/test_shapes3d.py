"""3D Shapes."""

import sys

import numpy as np
import pytest

from tests.support.archives import put, trust
from tests.support.factor_archives import shapes3d
from tests.support.files import error_of
from vae_cli.data import Shapes3D
from vae_cli.data.sets.shapes3d import ARCHIVE

pytest.importorskip("h5py")


def placed(tmp_path, monkeypatch, content):
    trust(monkeypatch, Shapes3D, {ARCHIVE: content})
    put(Shapes3D, tmp_path, {ARCHIVE: content})
    return Shapes3D(str(tmp_path))


def test_channels_come_first_and_values_of_factors_are_numbered(tmp_path, monkeypatch):
    images, factors = shapes3d(tmp_path / "made.h5")
    source = placed(tmp_path, monkeypatch, (tmp_path / "made.h5").read_bytes()).load()
    assert np.array_equal(source.train.values, images.transpose(0, 3, 1, 2)) and source.support == "levels256"
    assert np.array_equal(source.train.factors, factors)
    assert source.factor_names == ("floor_hue", "wall_hue", "object_hue", "scale", "shape", "orientation")


def test_a_broken_file_and_a_missing_package_are_named(tmp_path, monkeypatch):
    dataset = placed(tmp_path, monkeypatch, b"no HDF5")
    assert f"{ARCHIVE} cannot be read" in error_of(dataset.load)
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert 'pip install "vae-cli[shapes3d]"' in error_of(dataset.load)
