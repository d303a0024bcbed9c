"""Grids of images."""

import numpy as np
import torch
from PIL import Image

from vae_cli.reporting import grids
from vae_cli.system.atomic import write_png


def test_a_grid_is_nearly_square_and_enlarges_small_images_by_a_whole_factor():
    images = torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    pixels = np.asarray(grids.grid(images))
    assert pixels.shape == (3 * 58 + 2, 4 * 58 + 2)
    np.testing.assert_array_equal(pixels[2:58:7, 60:116:7], (255 * images[1, 0]).round().byte())
    assert grids.grid(images, columns=5).size == (5 * 58 + 2, 2 * 58 + 2)


def test_values_outside_the_unit_interval_are_cut_off_and_color_is_kept():
    images = torch.tensor([-1.0, 0.5, 2.0]).reshape(1, 3, 1, 1).expand(1, 3, 60, 60)
    assert grids.grid(images).getpixel((30, 30)) == (0, 128, 255)


def test_pairs_stand_above_each_other_with_a_wide_gap_to_the_next_rows():
    above, below = torch.zeros(9, 1, 56, 56), torch.ones(9, 1, 56, 56) / 3
    pixels = np.asarray(grids.pairs(above, below))
    column = pixels[:, 30]
    assert column[2] == 0 and column[58] == 255 and column[60] == 85 and column[116] == column[125] == 255
    assert column[126] == 0


def test_captions_stand_beside_rows_and_above_columns():
    images = torch.zeros(6, 1, 56, 56)
    plain, captioned = grids.grid(images, 3), grids.captioned(images, ["one", "two"], ["a", "b", "c"], 3)
    assert captioned.width > plain.width and captioned.height > plain.height
    left = captioned.width - plain.width
    crop = captioned.crop((left, captioned.height - plain.height, captioned.width, captioned.height))
    np.testing.assert_array_equal(np.asarray(crop), np.asarray(plain))
    assert np.asarray(captioned)[:, :left].min() < 128


def test_a_name_stands_before_the_captions_of_columns():
    images = torch.zeros(2, 1, 56, 56)
    without, named = (grids.captioned(images, [], ["a", "b"], 2, axis) for axis in ("", "z0"))
    left = named.width - without.width
    assert left > 0 and np.asarray(named)[:20, :left].min() < 128
    np.testing.assert_array_equal(np.asarray(named)[:, left:], np.asarray(without))


def test_a_png_replaces_an_older_one_whole(tmp_path):
    for shade in (0, 200):
        write_png(tmp_path / "new" / "x.png", Image.new("L", (3, 3), shade))
    assert Image.open(tmp_path / "new" / "x.png").getpixel((1, 1)) == 200
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["x.png"]
