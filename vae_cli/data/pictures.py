"""Image files of any kind, made into squares of bytes."""

from __future__ import annotations

import importlib
import logging
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BufferedIOBase

import numpy as np
from jaxtyping import Float, Integer, UInt8
from PIL import Image, ImageChops, features

SUFFIXES = {
    "PNG": (".png", ".apng"),
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JXL": (".jxl",),
}
PLUGINS = {  # of Pillow, by the format that they read: the module, and its package
    "AVIF": ("pillow_avif", "pillow-avif-plugin"),
    "HEIF": ("pillow_heif", "pillow-heif"),
    "JXL": ("pillow_jxl", "pillow-jxl-plugin"),
}
MOST_PIXELS = 1 << 26  # a few kilobytes of PNG may decode to gigabytes
LARGE_PIXELS = 1 << 24
_one_large = threading.Lock()  # so that as many such pictures as there are cores do not fill the memory
DEEP = ("I", "F")  # modes of more than 8 bits a value, besides I;16 and its like
DEEP_COLOR = re.compile(r";16[BLN]")  # in how Pillow describes the bytes of a file: 16 bits a channel, cut to 8
BITS_PER_SAMPLE = 258  # TIFF's tag
WHITE = 65535  # of integers of more than 8 bits; of floats it is 1
COLORED = 16  # difference of two channels below which a picture is gray: a JPEG's rounding
ORIENTATION = 0x0112  # EXIF's tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class Prepared:
    """A picture made into a square of bytes, and what it was before.

    Args:
        values: (C, size, size).
        size: the width and height of the file's picture.
        lost_color: it has colors, and was made gray.
        largest: the largest value of a picture with more than 8 bits a value; None of any other.
        pages: the file has further pages, which are left out.
    """

    values: UInt8[np.ndarray, "c size size"]
    size: tuple[int, int]
    lost_color: bool = False
    largest: float | None = None
    pages: bool = False


@cache
def formats() -> tuple[str, ...]:
    """Return the formats that can be read here, as Pillow names them; plug-ins are registered."""
    readable = [name for name in SUFFIXES if name not in PLUGINS]
    for name, (module, _) in PLUGINS.items():
        if name == "AVIF" and "avif" in features.get_supported_modules():
            readable.append(name)
        elif find_spec(module) is not None:
            with suppress(Exception):  # of whatever kind a plug-in raises that does not fit this Pillow or machine
                plugin = importlib.import_module(module)
                if name == "HEIF":
                    plugin.register_heif_opener()
                readable.append(name)
    return tuple(readable)


@cache
def suffixes() -> frozenset[str]:
    """Return the suffixes of files that can be read here, in lower case."""
    return frozenset(suffix for name in formats() for suffix in SUFFIXES[name])


def needed_package(suffix: str) -> str | None:
    """Return the package that would make files with a suffix readable, if there is one."""
    packages = [package for name, (_, package) in PLUGINS.items() if suffix in SUFFIXES[name]]
    return packages[0] if packages and suffix not in suffixes() else None


class OutOfRangeError(ValueError):
    """A picture whose values are not all between black and white."""


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Ignore the warnings of PIL and what it logs: a file is either read or not."""
    logging.getLogger("PIL").setLevel(logging.CRITICAL + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def square(
    file: BufferedIOBase, size: int, channels: int, crop: int | None = None, white: float | None = None
) -> Prepared:
    """Return the middle of a picture as bytes (channels, size, size).

    The first frame, upright by its EXIF, over white where it is transparent, gray of more than 8 bits brought to 8; its
    largest centered square, or one of `crop` pixels, resampled bicubically with antialiasing.

    Args:
        file: the picture's.
        size: pixels a side.
        channels: 3, or 1 for gray.
        crop: pixels a side of the middle that is kept.
        white: the value of white in pictures of more than 8 bits; None is 65535, and 1 for floats.

    Raises:
        ValueError: if it has more than `MOST_PIXELS`, of which none has been decoded then, or, as an
            `OutOfRangeError`, values that are not between black and white.
        Exception: of any kind, from PIL, for a broken file.
    """
    try:
        image: Image.Image = Image.open(file, formats=formats())  # type: ignore[arg-type]
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    with image, _one_large if image.width * image.height > LARGE_PIXELS else nullcontext():
        return prepare(image, size, channels, crop, white, may_draft=crop is None)


def prepare(
    image: Image.Image,
    size: int,
    channels: int,
    crop: int | None = None,
    white: float | None = None,
    may_draft: bool = False,
) -> Prepared:
    """Return the middle of an open picture as bytes, as `square` does.

    Args:
        image: the picture.
        size: see `square`.
        channels: see `square`.
        crop: see `square`.
        white: see `square`.
        may_draft: a JPEG may be decoded at a fraction of its size, which changes the open picture.

    Raises:
        ValueError, Exception: see `square`.
    """
    if image.width * image.height > MOST_PIXELS:
        raise _too_large(f"{image.width}x{image.height} pixels: ")
    width, height = image.size
    is_deep_color = image.mode in ("RGB", "RGBA", "LA") and DEEP_COLOR.search(str(getattr(image, "tile", "")))
    method = UPRIGHT.get(_orientation(image))
    pages = image.format == "TIFF" and bool(getattr(image, "is_animated", False))
    if is_deep_color and white is not None:
        raise ValueError("dataset.range is for gray images of more than 8 bits: make this one gray, or of 8 bits")
    if may_draft:
        _draft(image, size)
    largest = None
    if image.mode in DEEP or image.mode.startswith("I;16"):
        flat, largest = _from_deep(image, white)
        flat = flat.convert("L" if channels == 1 else "RGB")
    else:
        flat = _over_white(image)
        largest = 257.0 * float(np.max(flat.getextrema())) if is_deep_color else None
    lost_color = channels == 1 and flat.mode == "RGB" and _is_colored(flat)
    flat = flat.convert("L" if channels == 1 else "RGB")
    upright = flat if method is None else flat.transpose(method)
    side = min(upright.size) if crop is None else min(crop, *upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    middle = upright.crop((left, top, left + side, top + side))
    small = middle.resize((size, size), Image.Resampling.BICUBIC)
    values = np.ascontiguousarray(np.asarray(small).reshape(size, size, channels).transpose(2, 0, 1))
    return Prepared(values, (width, height), lost_color, largest, pages)


def _too_large(size: str = "") -> ValueError:
    return ValueError(f"{size}more than {MOST_PIXELS:,} pixels are not opened: shrink it")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ORIENTATION, 1))
    except Exception:  # a broken EXIF block, in whatever way; the picture itself may be whole
        return 1


def _draft(image: Image.Image, size: int) -> None:
    """Let a JPEG be decoded at a fraction of its size, if that leaves twice what is needed."""
    side = min(image.size)
    if side >= 4 * size:
        image.draft(None, (image.width * 2 * size // side, image.height * 2 * size // side))


def _from_deep(image: Image.Image, white: float | None) -> tuple[Image.Image, float]:
    """Return a picture of integers or floats in bytes, and its largest value."""
    values, clear = np.asarray(image), image.info.get("transparency")
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (16,))[0]  # such as 12
    levels, largest = to_bytes(values, white or (1 if image.mode == "F" else 2 ** min(bits, 16) - 1))
    if isinstance(clear, int):
        levels[values == clear] = 255
    return Image.fromarray(levels), largest


def to_bytes(
    values: Float[np.ndarray, "..."] | Integer[np.ndarray, "..."], white: float
) -> tuple[UInt8[np.ndarray, "..."], float]:
    """Return values from 0 to `white` as bytes, and the largest of them.

    Raises:
        OutOfRangeError: for values outside, NaN among them.
    """
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= white):
        raise OutOfRangeError(f"its values are from {low:g} to {high:g}, not from 0 to {white:g}: rescale them")
    return np.rint(values.astype(np.float64) * (255 / white)).astype(np.uint8), high


def _over_white(image: Image.Image) -> Image.Image:
    """Return a picture in `1`, `L` or `RGB`, over white where it is transparent."""
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB")
    return image if image.mode in ("1", "L") else image.convert("RGB")


def _is_colored(image: Image.Image) -> bool:
    red, green, blue = image.split()
    differences = (ImageChops.difference(red, green), ImageChops.difference(green, blue))
    return any(float(np.max(difference.getextrema())) > COLORED for difference in differences)
