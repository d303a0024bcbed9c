"""The cache of unpacked images."""

import numpy as np
import pytest

from vae_cli.data.mapped import is_mapped
from vae_cli.data.unpacked import resized, unpack
from vae_cli.errors import DataError

VALUES = np.random.default_rng(0).integers(0, 256, (7, 1, 2, 2), dtype=np.uint8)


def test_images_are_unpacked_once_in_any_order_and_mapped(tmp_path, capsys):
    read = []

    def chunks():
        for start in (4, 0):
            read.append(start)
            yield start, VALUES[start : start + 4]

    for _ in range(2):
        mapped = unpack(chunks(), VALUES.shape, tmp_path / "cache", "one", "toys")
        assert is_mapped(mapped) and np.array_equal(mapped, VALUES)
    assert read == [4, 0] and capsys.readouterr().err.count("unpacking 7 images") == 1


def test_another_fingerprint_replaces_the_file_and_a_part_is_made_anew(tmp_path):
    unpack([(0, VALUES)], VALUES.shape, tmp_path, "one", "toys")
    unpack([(0, VALUES)], VALUES.shape, tmp_path, "two", "toys")
    assert [path.name for path in tmp_path.glob("*.bytes")] == ["two.bytes"]
    (tmp_path / "two.bytes").write_bytes(b"half")
    assert np.array_equal(unpack([(0, VALUES)], VALUES.shape, tmp_path, "two", "toys"), VALUES)


def test_too_few_images_leave_no_file(tmp_path):
    with pytest.raises(ValueError, match="3 images, not 7"):
        unpack([(0, VALUES[:3])], VALUES.shape, tmp_path, "one", "toys")
    assert not list(tmp_path.glob("*.bytes")) and not list(tmp_path.glob(".*.tmp"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match="file cannot be written"):
        unpack([(0, VALUES)], VALUES.shape, tmp_path / "file", "one", "toys")


def test_images_shrink_to_their_means_and_channels_come_first():
    color = np.zeros((8, 8, 3), np.uint8) + np.array([10, 20, 30], np.uint8)
    assert (resized(color, 4) == np.array([10, 20, 30])[:, None, None]).all() and resized(color, 4).shape == (3, 4, 4)
    assert np.array_equal(resized(color[..., 0], 8)[0], color[..., 0])
    halves = np.repeat(np.array([[0, 200]], np.uint8), 4, 1).repeat(8, 0)
    assert resized(halves, 2)[0, 0].tolist() == pytest.approx([0, 200], abs=40)
