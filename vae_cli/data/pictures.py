"""Image files of any kind, made into squares of bytes."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from io import BufferedIOBase

import numpy as np
from jaxtyping import UInt8
from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"})
MOST_PIXELS = 1 << 26  # a few kilobytes of PNG may decode to gigabytes
LARGE_PIXELS = 1 << 24
_one_large = threading.Lock()  # so that as many such pictures as there are cores do not fill the memory
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


@contextmanager
def ignore_warnings() -> Iterator[None]:
    """Ignore the warnings of PIL: a file is either read or not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def square(file: BufferedIOBase, size: int, channels: int, crop: int | None = None) -> UInt8[np.ndarray, "c size size"]:
    """Return the middle of a picture as bytes (channels, size, size).

    The first frame, upright by its EXIF, over white where it is transparent, 16-bit gray brought to 8 bits; its
    largest centered square, or one of `crop` pixels, resampled bicubically with antialiasing.

    Raises:
        ValueError: if it has more than `MOST_PIXELS`; nothing has been decoded then.
        Exception: of any kind, from PIL, for a broken file.
    """
    try:
        image: Image.Image = Image.open(file, formats=FORMATS)  # type: ignore[arg-type]
    except Image.DecompressionBombError as error:
        raise _too_large() from error
    with image, _one_large if image.width * image.height > LARGE_PIXELS else nullcontext():
        if image.width * image.height > MOST_PIXELS:
            raise _too_large(f"{image.width}x{image.height} pixels: ")
        method = UPRIGHT.get(_orientation(image))
        if crop is None:
            _draft(image, size)
        flat = _over_white(image, "L" if channels == 1 else "RGB")
    upright = flat if method is None else flat.transpose(method)
    side = min(upright.size) if crop is None else min(crop, *upright.size)
    left, top = (upright.width - side) // 2, (upright.height - side) // 2
    middle = upright.crop((left, top, left + side, top + side))
    small = middle.resize((size, size), Image.Resampling.BICUBIC)
    values = np.asarray(small).reshape(size, size, channels)
    return np.ascontiguousarray(values.transpose(2, 0, 1))


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


def _over_white(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == "I" or image.mode.startswith("I;16"):
        levels = np.asarray(image).astype(np.int64).clip(0, 65535)
        return Image.fromarray(((levels * 255 + 32767) // 65535).astype(np.uint8)).convert(mode)
    if image.has_transparency_data:
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image.convert("RGBA"))
        return canvas.convert("RGB").convert(mode)
    if image.mode in ("1", "L"):
        return image.convert(mode)
    return image.convert("RGB").convert(mode)
