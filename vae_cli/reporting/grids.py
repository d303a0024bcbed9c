"""Grids of images."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

INK, BACKGROUND = 0, 255
LETTERS = 13  # pixels high
CELL = 56  # pixels a side, to about which small images are enlarged by a whole factor
GAP = 2
TRAVERSED_DIMENSIONS = 20  # latent ones, at most, in traversals.png

Pixels = UInt8[np.ndarray, "n h w c"]


def to_bytes(images: Float[Tensor, "n c h w"]) -> Pixels:
    """Return values in [0, 1] as bytes, channels last; values outside are cut off."""
    values = images.detach().float().clamp(0, 1).mul(255).round().byte()
    return values.permute(0, 2, 3, 1).cpu().numpy()


def grid(images: Float[Tensor, "n c h w"], columns: int | None = None) -> Image.Image:
    """Return the images row by row, in about as many columns as rows by default."""
    return from_pixels(_tile(_enlarge(to_bytes(images)), columns or math.ceil(math.sqrt(len(images)))))


def captioned(
    images: Float[Tensor, "n c h w"],
    row_captions: list[str],
    column_captions: list[str],
    columns: int,
    axis: str = "",
) -> Image.Image:
    """Return a grid with captions to the left of its rows and above its columns, where there are any, and a name of
    the latter before them."""
    cells = _enlarge(to_bytes(images))
    picture, font = from_pixels(_tile(cells, columns)), ImageFont.load_default(LETTERS)
    height, width = (side + GAP for side in cells.shape[1:3])
    left = max((math.ceil(font.getlength(text)) + 3 * GAP for text in [*row_captions, axis] if text), default=0)
    top = LETTERS + 4 * GAP if column_captions else 0
    canvas = Image.new(picture.mode, (picture.width + left, picture.height + top), _shade(picture, BACKGROUND))
    canvas.paste(picture, (left, top))
    pen, ink = ImageDraw.Draw(canvas), _shade(picture, INK)
    pen.text((left - GAP, top // 2), axis, ink, font, anchor="rm")
    for number, text in enumerate(row_captions):
        pen.text((left - GAP, top + GAP + number * height + height // 2), text, ink, font, anchor="rm")
    # Of captions that are wider than a column, only every second or third has room.
    every = max((math.ceil((font.getlength(text) + GAP) / width) for text in column_captions), default=1)
    for number, text in list(enumerate(column_captions))[::every]:
        pen.text((left + GAP + number * width + width // 2, top // 2), text, ink, font, anchor="mm")
    return canvas


def _shade(picture: Image.Image, value: int) -> int | tuple[int, int, int]:
    return value if picture.mode == "L" else (value, value, value)


def pairs(above: Float[Tensor, "n c h w"], below: Float[Tensor, "n c h w"], columns: int = 8) -> Image.Image:
    """Return rows of images, each image above its counterpart, with a wide gap between the pairs of rows."""
    first, second = _enlarge(to_bytes(above)), _enlarge(to_bytes(below))
    gap = np.full((len(first), GAP, *first.shape[2:]), BACKGROUND, np.uint8)
    return from_pixels(_tile(np.concatenate([first, gap, second], axis=1), columns, row_gap=5 * GAP))


def from_pixels(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """Return a picture of one image at its own size."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)


def _enlarge(pixels: Pixels) -> UInt8[np.ndarray, "n hh ww c"]:
    factor = max(1, round(CELL / max(pixels.shape[1:3])))
    return pixels.repeat(factor, axis=1).repeat(factor, axis=2)


def _tile(cells: Pixels, columns: int, row_gap: int = GAP) -> UInt8[np.ndarray, "y x c"]:
    count, height, width, channels = cells.shape
    columns = min(columns, count)
    rows = math.ceil(count / columns)
    shape = (rows * (height + row_gap) - row_gap + 2 * GAP, columns * (width + GAP) + GAP, channels)
    canvas = np.full(shape, BACKGROUND, np.uint8)
    for number, cell in enumerate(cells):
        top = GAP + (number // columns) * (height + row_gap)
        left = GAP + (number % columns) * (width + GAP)
        canvas[top : top + height, left : left + width] = cell
    return canvas
