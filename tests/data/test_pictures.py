"""One image file of any kind, as a square of bytes."""

import numpy as np
import pytest
from PIL import Image

from tests.support.pictures import noise, picture
from vae_cli.data import pictures

RNG = np.random.default_rng(0)


def one(root, name, image, size=16, channels=3, **saved):
    """Return the pixels of a single picture, (C, size, size)."""
    path = root / name
    image.save(path, **saved)
    with path.open("rb") as file:
        return pictures.square(file, size, channels)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.gif", "a.jpg"])
def test_a_picture_of_every_format_gives_its_color(tmp_path, name):
    saved = {"lossless": True} if name.endswith("webp") else {}
    pixels = one(tmp_path, name, picture(), **saved)
    assert pixels.shape == (3, 16, 16) and pixels.dtype == np.uint8
    np.testing.assert_allclose(pixels.mean((1, 2)), (200, 30, 60), atol=2)


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "PA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_white_picture_of_every_mode_is_white(tmp_path, mode, channels):
    image = Image.new("RGB", (20, 20), "white")
    if mode == "I;16":
        image = Image.fromarray(np.full((20, 20), 65535, np.uint16))
    elif mode == "PA":
        image = Image.new("RGBA", (20, 20), "white").quantize(4)
    else:
        image = image.convert(mode)
    name = "a.jpg" if mode == "CMYK" else "a.png"
    assert one(tmp_path, name, image, channels=channels).shape == (channels, 16, 16)
    assert (one(tmp_path, name, image, channels=channels) >= 254).all()


def test_sixteen_bits_are_brought_to_eight(tmp_path):
    levels = (np.arange(256, dtype=np.uint16) * 257).reshape(16, 16)
    pixels = one(tmp_path, "a.png", Image.fromarray(levels), channels=1)
    assert np.array_equal(pixels[0], np.arange(256).reshape(16, 16))


def test_what_is_transparent_is_put_over_white(tmp_path):
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    half = Image.new("RGBA", (16, 16), (0, 0, 0, 128))
    assert (one(tmp_path, "a.png", clear) == 255).all()
    assert abs(int(one(tmp_path, "b.png", half)[0, 0, 0]) - 127) <= 1
    palette = Image.new("P", (16, 16), 0)
    palette.putpalette([10, 20, 30] + [0] * 765)
    assert (one(tmp_path, "c.gif", palette, transparency=0) == 255).all()
    assert (one(tmp_path, "d.png", picture(16, 16), transparency=(200, 30, 60)) == 255).all()


def test_a_square_of_the_right_size_is_left_as_it_is(tmp_path):
    image = noise(16, 16)
    assert np.array_equal(one(tmp_path, "a.png", image), np.asarray(image).transpose(2, 0, 1))


def test_the_middle_is_kept_and_resized_like_pillow_does(tmp_path):
    image = noise(50, 30)
    expected = image.crop((10, 0, 40, 30)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.array_equal(one(tmp_path, "a.png", image), np.asarray(expected).transpose(2, 0, 1))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (3000, 2)])
def test_the_smallest_and_the_longest_picture_become_squares(tmp_path, size):
    np.testing.assert_allclose(one(tmp_path, "a.png", picture(*size)).mean((1, 2)), (200, 30, 60), atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_turns_a_picture_upright_as_pillow_does(tmp_path, orientation):
    from PIL import ImageOps

    image, exif = noise(30, 22), Image.Exif()
    exif[pictures.ORIENTATION] = orientation
    pixels = one(tmp_path, "a.png", image, exif=exif)
    with Image.open(tmp_path / "a.png") as opened:
        upright = ImageOps.exif_transpose(opened)
    (tmp_path / "b").mkdir()
    assert np.array_equal(pixels, one(tmp_path / "b", "a.png", Image.fromarray(np.asarray(upright))))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path):
    assert one(tmp_path, "a.jpg", picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff").shape == (3, 16, 16)


def test_a_large_jpeg_decoded_at_a_fraction_looks_the_same(tmp_path):
    smooth = Image.fromarray(RNG.integers(0, 256, (8, 12, 3), dtype=np.uint8)).resize((1200, 800), Image.BICUBIC)
    exact = one(tmp_path, "a.png", smooth)
    drafted = one(tmp_path, "a.jpg", smooth, quality=95)
    assert np.abs(exact.astype(int) - drafted).mean() < 3


def test_the_first_frame_of_a_moving_picture_counts(tmp_path):
    frames = [picture(value=(250, 0, 0)), picture(value=(0, 250, 0))]
    for name in ("a.gif", "a.webp", "a.png"):
        pixels = one(tmp_path, name, frames[0], save_all=True, append_images=frames[1:])
        assert pixels[0].mean() > 200 > 60 > pixels[1].mean()
