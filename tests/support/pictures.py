"""Pictures of a few colors, in directories."""

import numpy as np
from PIL import Image

from vae_cli.data import Folder

RNG = np.random.default_rng(0)


def picture(width=20, height=20, value=(200, 30, 60)):
    return Image.new("RGB", (width, height), value)


def noise(width=32, height=32):
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def put(root, *names, image=None):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (image or picture()).save(path)


def load(root, size=16, **options):
    return Folder(str(root), image_size=size, **options).load()
