"""One image file of any kind, as a square of bytes."""

import io
import struct
import types
import zlib

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
        return pictures.square(file, size, channels).values


def prepared(root, name, image, **options):
    """Return a single picture of 16x16 and what it was before."""
    image.save(root / name, **options.pop("saved", {}))
    with (root / name).open("rb") as file:
        return pictures.square(file, 16, options.pop("channels", 1), **options)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.webp", "a.gif", "a.jpg", "a.tif", "a.ppm"])
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


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16", "I", "F", "YCbCr"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_white_tiff_of_every_mode_is_white(tmp_path, mode, channels):
    whites = {"I;16": (np.uint16, 65535), "I": (np.int32, 65535), "F": (np.float32, 1)}
    if mode in whites:
        dtype, white = whites[mode]
        image = Image.fromarray(np.full((20, 20), white, dtype))
    else:
        image = Image.new("RGB", (20, 20), "white").convert(mode)
    assert (prepared(tmp_path, "a.tif", image, channels=channels).values >= 254).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg"])
def test_a_compressed_tiff_gives_its_color(tmp_path, compression):
    values = prepared(tmp_path, "a.tiff", picture(), channels=3, saved={"compression": compression}).values
    np.testing.assert_allclose(values.mean((1, 2)), (200, 30, 60), atol=2)


def test_of_a_tiff_the_first_page_counts_and_the_others_are_known(tmp_path):
    pages = [picture(value=(250, 0, 0)), picture(value=(0, 250, 0))]
    found = prepared(tmp_path, "a.tif", pages[0], channels=3, saved={"save_all": True, "append_images": pages[1:]})
    assert found.values[0].min() == 250 and found.values[1].max() == 0 and found.pages
    assert not prepared(tmp_path, "b.tif", pages[0]).pages


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_range_is_the_value_of_white_and_the_largest_value_is_known(tmp_path, name):
    levels = (np.arange(256, dtype=np.uint16) * 16).reshape(16, 16)
    dark = prepared(tmp_path, name, Image.fromarray(levels))
    assert dark.values.max() == 16 and dark.largest == 255 * 16
    bright = prepared(tmp_path, name, Image.fromarray(levels), white=4080)
    assert np.array_equal(bright.values[0].ravel(), np.arange(256))
    assert prepared(tmp_path, "b.png", picture(16, 16), white=4080).largest is None


@pytest.mark.parametrize(
    ("values", "white"),
    [
        (np.array([[0, 5000]], np.uint16), 4095),
        (np.array([[0, 70_000]], np.int32), None),
        (np.array([[-1, 7]], np.int32), None),
        (np.array([[0, 1.5]], np.float32), None),
        (np.array([[0, np.nan]], np.float32), None),
        (np.array([[0, np.inf]], np.float32), 9.0),
    ],
)
def test_values_that_are_not_between_black_and_white_are_refused(tmp_path, values, white):
    with pytest.raises(ValueError, match=r"its values are from .*: rescale them"):
        prepared(tmp_path, "a.tif", Image.fromarray(values), white=white)


def color_of_16_bits():
    """A 16-bit RGB PNG, as Pillow does not write it: 16x16 pixels of 4095, 0 and 0."""
    row = b"\0" + struct.pack(">3H", 4095, 0, 0) * 16
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(row * 16)),
        (b"IEND", b""),
    )
    parts = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_color_of_16_bits_is_known_to_be_dark_and_refused_where_a_range_is_set():
    found = pictures.square(io.BytesIO(color_of_16_bits()), 16, 3)
    assert 3800 < found.largest < 4200
    with pytest.raises(ValueError, match=r"dataset\.range is for gray images"):
        pictures.square(io.BytesIO(color_of_16_bits()), 16, 3, white=4095)


def test_a_bmp_of_16_bits_a_pixel_has_fewer_a_channel():
    """One of 5, 6 and 5 bits, which Pillow does not write: 16x16 pixels of pure red."""
    header = struct.pack("<IiiHHIIiiII", 40, 16, 16, 1, 16, 3, 512, 0, 0, 0, 0) + struct.pack(
        "<III", 0xF800, 0x7E0, 0x1F
    )
    data = b"BM" + struct.pack("<IHHI", 66 + 512, 0, 0, 66) + header + struct.pack("<H", 0xF800) * 256
    found = pictures.square(io.BytesIO(data), 16, 3, white=4095)
    assert found.largest is None and found.values[0].min() == 255 and found.values[1:].max() == 0


def test_a_tiff_of_12_bits_says_so_itself(tmp_path):
    """One of two pixels, white and black, which Pillow does not write."""
    tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, 3)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    data = b"II*\0" + struct.pack("<I", 12) + b"\xff\xf0\x00\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
    found = pictures.square(io.BytesIO(data), 1, 1, crop=None)
    assert found.largest == 4095 and pictures.square(io.BytesIO(data), 1, 1, white=4095).values == found.values
    assert found.values.item() == 255


def test_color_that_becomes_gray_is_known_and_gray_in_three_channels_is_none(tmp_path):
    assert prepared(tmp_path, "a.png", noise()).lost_color and prepared(tmp_path, "b.png", noise()).size == (32, 32)
    gray = Image.fromarray(RNG.integers(0, 256, (32, 32), dtype=np.uint8)).convert("RGB")
    assert not prepared(tmp_path, "c.jpg", gray).lost_color and not prepared(tmp_path, "d.gif", gray).lost_color
    assert not prepared(tmp_path, "e.png", noise(), channels=3).lost_color


@pytest.mark.skipif("AVIF" not in pictures.formats(), reason="Pillow reads no AVIF here")
def test_an_avif_gives_its_color(tmp_path):
    values = prepared(tmp_path, "a.avif", picture(), channels=3).values
    np.testing.assert_allclose(values.mean((1, 2)), (200, 30, 60), atol=4)


def test_a_plug_in_makes_its_files_readable_and_without_it_they_name_its_package(monkeypatch):
    registered = []
    plugin = types.SimpleNamespace(register_heif_opener=lambda: registered.append("HEIF"))
    for here in (False, True):
        pictures.formats.cache_clear(), pictures.suffixes.cache_clear()
        monkeypatch.setattr(pictures, "find_spec", lambda name, here=here: here and name == "pillow_heif" or None)
        monkeypatch.setattr(pictures.importlib, "import_module", lambda name: plugin)
        assert ("HEIF" in pictures.formats()) == here == (".heic" in pictures.suffixes())
        assert pictures.needed_package(".heic") == (None if here else "pillow-heif")
        assert pictures.needed_package(".jxl") == "pillow-jxl-plugin" and pictures.needed_package(".svg") is None
    assert registered == ["HEIF"]
    pictures.formats.cache_clear(), pictures.suffixes.cache_clear()


def test_a_plug_in_that_does_not_load_counts_as_missing(monkeypatch):
    def fail(name):
        raise ImportError(f"{name} was built for another Pillow")

    pictures.formats.cache_clear(), pictures.suffixes.cache_clear()
    monkeypatch.setattr(pictures, "find_spec", lambda name: True)
    monkeypatch.setattr(pictures.importlib, "import_module", fail)
    assert "JXL" not in pictures.formats() and pictures.needed_package(".jxl") == "pillow-jxl-plugin"
    pictures.formats.cache_clear(), pictures.suffixes.cache_clear()
