"""Sprites: small shapes drawn on this machine from known factors."""

from __future__ import annotations

import colorsys
from typing import Annotated

import numpy as np
from jaxtyping import Bool, Float, UInt8

from vae_cli.constraints import Index, Range
from vae_cli.data.base import Binarize, Dataset, Source
from vae_cli.data.images import Images

SHAPES = ("square", "ellipse", "heart")
SCALES = np.linspace(0.5, 1.0, 6)
ROTATIONS = np.arange(8) * np.pi / 16  # 0°, 11.25° … 78.75°
PLACES, COLOR_PLACES, HUES = 12, 6, 6
RADIUS = 10 / 32  # of the circle around a shape of scale 1, in sides of the image
SAMPLES = 8  # of the shape in a pixel, along each axis
HEART_CENTER, HEART_RADIUS = 0.25, 1.25  # of the circle around the heart's curve: how high its middle is, its radius
FACTORS = ("shape", "scale", "rotation", "x", "y")


class Sprites(Dataset):
    """20,736 black-and-white images of a square, an ellipse or a heart, one for each combination of five factors.

    shape (3) × scale (6) × rotation (8) × x (12) × y (12), drawn in a moment: no download, no network. With `color`
    there are 31,104 images of 8-bit colors: six hues, and six places along each axis.

    No two images are the same, so that every factor can be read off the image. A square looks the same after a quarter
    of a turn, and an ellipse after half of one. So the rotations end before a quarter, at 78.75°, where those of
    dSprites go all the way round. The places are whole pixels.

    Args:
        image_size: pixels a side; larger images show the same shapes finer.
        color: whether each shape has one of six hues.
        binarize: see `Dataset`; without color the values are binary already.
        validation: see `Dataset`.

    References:
        L. Matthey, I. Higgins, D. Hassabis and A. Lerchner, dSprites: Disentanglement testing Sprites dataset, 2017.
    """

    name = "sprites"
    is_sorted = True
    test_fraction = 0.2

    def __init__(
        self,
        image_size: Annotated[int, Range(32, 128)] = 32,
        color: bool = False,
        binarize: Binarize = "none",
        validation: Index | None = None,
    ) -> None:
        super().__init__(binarize, validation)
        self.image_size, self.color = image_size, color

    def load(self) -> Source:
        """Draw images (1, H, W) of zeros and ones, or (3, H, W) of bytes, with their factors."""
        places = self._places()
        sizes = (len(SHAPES), len(SCALES), len(ROTATIONS), len(places), len(places))
        drawn = np.zeros((*sizes, self.image_size, self.image_size), np.uint8)
        for number, scale, turn in np.ndindex(sizes[:3]):
            shape = self._shape(SHAPES[number], SCALES[scale], ROTATIONS[turn])
            for column, left in enumerate(places):
                for row, top in enumerate(places):
                    image = drawn[number, scale, turn, column, row]
                    image[top : top + len(shape), left : left + len(shape)] = shape
        values = drawn.reshape(-1, 1, self.image_size, self.image_size)
        if not self.color:
            return Source(_images(values, sizes), None, None, "binary", factor_names=FACTORS)
        images = _images(_colored(values), (HUES, *sizes))
        return Source(images, None, None, "levels256", factor_names=("hue", *FACTORS))

    def _places(self) -> list[int]:
        """Return the first pixel of a shape at each place along an axis: as far apart as the image allows, evenly."""
        count = COLOR_PLACES if self.color else PLACES
        room = self.image_size - self._side
        step = room // (count - 1)
        first = (room - step * (count - 1)) // 2
        return [first + step * place for place in range(count)]

    @property
    def _side(self) -> int:
        return int(np.ceil(2 * RADIUS * self.image_size))

    def _shape(self, name: str, scale: float, angle: float) -> UInt8[np.ndarray, "s s"]:
        """Return a shape alone: 1 where it covers half of a pixel; of colors 0 to 255, the part that it covers."""
        side = self._side
        along = (np.arange(side * SAMPLES) + 0.5) / SAMPLES - side / 2
        x, y = np.meshgrid(along, -along)  # rows go down, and y up
        radius = scale * RADIUS * self.image_size
        u = (np.cos(angle) * x + np.sin(angle) * y) / radius
        v = (np.cos(angle) * y - np.sin(angle) * x) / radius
        covered = _inside(name, u, v).reshape(side, SAMPLES, side, SAMPLES).mean((1, 3))
        return np.rint(255 * covered).astype(np.uint8) if self.color else (covered >= 0.5).astype(np.uint8)


def _inside(name: str, u: Float[np.ndarray, "n n"], v: Float[np.ndarray, "n n"]) -> Bool[np.ndarray, "n n"]:
    """Return which points are inside a shape that the unit circle holds."""
    if name == "square":
        return np.maximum(abs(u), abs(v)) <= np.sqrt(0.5)
    if name == "ellipse":
        return u**2 + 4 * v**2 <= 1
    u, v = u * HEART_RADIUS, v * HEART_RADIUS + HEART_CENTER
    return (u**2 + v**2 - 1) ** 3 <= u**2 * v**3


def _images(values: UInt8[np.ndarray, "n c h w"], sizes: tuple[int, ...]) -> Images:
    factors = np.stack(np.unravel_index(np.arange(len(values)), sizes), 1)
    return Images(values, factors=factors.astype(np.int64))


def _colored(covered: UInt8[np.ndarray, "n 1 h w"]) -> UInt8[np.ndarray, "m 3 h w"]:
    """Return the images in each hue, on black."""
    values = np.zeros((HUES, len(covered), 3, *covered.shape[2:]), np.uint8)
    for hue in range(HUES):
        for channel, strength in enumerate(colorsys.hsv_to_rgb(hue / HUES, 1, 1)):
            if round(strength):  # six hues of full saturation are all or nothing in each channel
                values[hue, :, channel] = covered[:, 0]
    return values.reshape(-1, *values.shape[2:])
