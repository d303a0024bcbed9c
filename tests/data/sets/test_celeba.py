"""CelebA."""

import io

import numpy as np
from PIL import Image

from tests.support.archives import PARTITION, celeba_members, face, made, put, stored, trust, zipped
from tests.support.files import error_of
from vae_cli.data import CelebA
from vae_cli.errors import ConfigError


def test_it_comes_in_its_own_three_splits(tmp_path):
    put(CelebA, tmp_path)
    source = CelebA(str(tmp_path), image_size=8).load()
    for part, images in enumerate((source.train, source.validation, source.test)):
        numbers = [number for number, own in enumerate(PARTITION) if own == part]
        blue = stored(images)[:, 2].mean((1, 2))
        assert np.allclose(blue, [10 + 20 * number for number in numbers], atol=3)


def test_faces_are_the_middle_148_pixels_in_the_size_asked_for(tmp_path):
    put(CelebA, tmp_path)
    whole = CelebA(str(tmp_path), image_size=148).load().train.values
    for number, values in enumerate(whole):
        decoded = np.asarray(Image.open(io.BytesIO(face(number))))
        assert np.array_equal(values.transpose(1, 2, 0), decoded[35:183, 15:163])
    small = CelebA(str(tmp_path), image_size=16).load().train.values
    assert small.shape == (len(PARTITION), 3, 16, 16)
    assert np.abs(small[:, 0, 1:-1].astype(float) - np.linspace(20, 220, 16)[1:-1, None]).max() < 12


def test_another_size_than_its_own_validation_set_is_a_mistake_in_the_settings(tmp_path):
    put(CelebA, tmp_path)
    assert "split of their own with 3" in error_of(CelebA(str(tmp_path), validation=2).splits, ConfigError)
    assert len(CelebA(str(tmp_path), validation=3).splits().validation) == 3


def test_a_picture_that_is_missing_from_the_archive_is_named(tmp_path, monkeypatch):
    members = celeba_members()
    del members["img_align_celeba/000004.jpg"]
    files = {**made()[CelebA], "img_align_celeba.zip": zipped(members)}
    trust(monkeypatch, CelebA, files)
    put(CelebA, tmp_path, files)
    assert "img_align_celeba.zip: 000004.jpg cannot be read" in error_of(CelebA(str(tmp_path)).load)
