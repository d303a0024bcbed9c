"""What the page may ask of the model: each body of a request is read before any work begins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vae_cli.exploring import requests
from vae_cli.exploring.explorer import Answer, Explorer

Work = Callable[[], Answer]


class Views:
    """The requests of a page about a model; each method reads a body, and gives the work that answers it.

    Every method raises a `BadRequest` for a body that is not as the page makes them.
    """

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.axes = {axis.name: axis for axis in explorer.axes}
        self.dim, self.classes = len(explorer.start), explorer.model.classes

    def image(self, body: dict[str, Any]) -> Work:
        """Return the image of a code."""
        z, y = requests.latent(body, "z", self.dim), requests.label(body, "label", self.classes)
        return lambda: self.explorer.image(z, y)

    def draw(self, body: dict[str, Any]) -> Work:
        """Return a draw from the prior and its image."""
        seed, y = requests.whole(body, "seed", requests.LARGEST_SEED, 0), requests.label(body, "label", self.classes)
        temperature = requests.temperature(body)
        return lambda: self.explorer.draw(seed, temperature, y)

    def test(self, body: dict[str, Any]) -> Work:
        """Return a test image, its code and its reconstruction."""
        number = requests.whole(body, "number", requests.LARGEST_SEED)
        return lambda: self.explorer.encode_test(number)

    def neighbours(self, body: dict[str, Any]) -> Work:
        """Return the test images whose codes are nearest."""
        z = requests.latent(body, "z", self.dim)
        return lambda: self.explorer.neighbours(z)

    def walk(self, body: dict[str, Any]) -> Work:
        """Return the images between two codes."""
        first, second = requests.latent(body, "first", self.dim), requests.latent(body, "second", self.dim)
        labels = requests.label(body, "first_label", self.classes), requests.label(body, "second_label", self.classes)
        steps = requests.whole(body, "steps", requests.MOST_STEPS, lowest=2)
        return lambda: self.explorer.walk(first, second, labels, steps)

    def points(self, body: dict[str, Any]) -> Work:
        """Return the codes of test images in a plane."""
        x, y = requests.choice(body, "x", self.axes), requests.choice(body, "y", self.axes)
        return lambda: self.explorer.points(x, y)
