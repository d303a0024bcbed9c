"""Archives like those of the published sets with factors, but small."""

import gzip
import io
import struct

import numpy as np

from tests.support.archives import noise, tarred


def dsprites(pickle=b""):
    """An .npz of 2 x 3 x 4 x 2 x 2 images of 8x8 pixels: the file, the images and the factors with the color."""
    factors = np.stack(np.unravel_index(np.arange(96), (1, 2, 3, 4, 2, 2)), 1)
    images = (noise(96, 8, 8) > 127).astype(np.uint8)
    buffer = io.BytesIO()
    metadata = np.array([{"latents_names": 1}], object)  # a pickle, as in the published file
    np.savez_compressed(buffer, imgs=images, latents_classes=factors, latents_values=factors / 7.0, metadata=metadata)
    return buffer.getvalue(), images, factors


def shapes3d(path):
    """Write an HDF5 file of 48 images of 8x8 pixels; return the images and the numbers of the factors' values."""
    import h5py

    factors = np.stack(np.unravel_index(np.arange(48), (2, 2, 2, 2, 1, 3)), 1)
    images = noise(48, 8, 8, 3)
    with h5py.File(path, "w") as file:
        file["images"] = images
        file["labels"] = np.array([0.1, 0.1, 0.1, 0.25, 1, 15.0]) * factors - np.array([0, 0, 0, 0, 0, 30])
    return images, factors


def cars3d(cars, missing=False):
    """A .tar.gz of so many cars of 8x8 pixels: the file, and the images (car, elevation, azimuth, H, W, 3)."""
    from scipy.io import savemat

    images = noise(cars, 4, 24, 8, 8, 3)
    members = {"data/cars/list.txt": b"car_001_mesh\n", "data/sprites/sprites_1.mat": b"not read"}
    for number in reversed(range(cars)):
        buffer = io.BytesIO()
        savemat(buffer, {"im": images[number].transpose(2, 3, 4, 1, 0), "mask": np.zeros((2, 2))})
        members[f"data/cars/car_{number + 1:03}_mesh.mat"] = buffer.getvalue()
    if missing:
        members.popitem()
    return tarred(members), images


def norb(values):
    """An array in NORB's format, packed."""
    magic = {"uint8": 0x1E3D4C55, "int32": 0x1E3D4C54}[values.dtype.name]
    sizes = [*values.shape, *[1] * (3 - values.ndim)]
    return gzip.compress(struct.pack(f"<{2 + len(sizes)}i", magic, values.ndim, *sizes) + values.tobytes())


def smallnorb(part):
    """The three files of a part, by the ends of their names; the images and the factors."""
    random = np.random.default_rng(part == "test")
    images = random.integers(0, 256, (40, 2, 8, 8), dtype=np.uint8)
    factors = np.stack([np.arange(40) % size for size in (5, 10, 9, 18, 6)], 1)
    info = factors[:, 1:].astype(np.int32) * np.array([1, 1, 2, 1], np.int32)
    return {"dat": norb(images), "cat": norb(factors[:, 0].astype(np.int32)), "info": norb(info)}, images, factors
