"""A cache of images that were unpacked from an archive: made once, and mapped by every later run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from vae_cli.data.mapped import cannot_write
from vae_cli.errors import describe
from vae_cli.system.atomic import atomic_write
from vae_cli.system.locks import file_lock

Placed = tuple[int, np.ndarray]  # where images go, and the images


def unpack(chunks: Iterable[Placed], shape: tuple[int, ...], folder: Path, fingerprint: str, title: str) -> np.ndarray:
    """Map the images in a cache, which is made first unless it is there.

    Args:
        chunks: the place of the first of some images and these images, uint8; all of them in any order. Nothing is read
            of them where the cache is there.
        shape: of all images, (N, C, H, W).
        folder: of the cache of these images, whatever their fingerprint.
        fingerprint: changes whenever the archive or the way it is unpacked does.
        title: of the images, as printed.

    Raises:
        DataError: if `folder` cannot be written.
    """
    path, size = folder / f"{fingerprint}.bytes", int(np.prod(shape, dtype=np.int64))
    try:
        if not _is_whole(path, size):
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(folder / ".lock", wait=True, title=title):
                if not _is_whole(path, size):  # else it was made by another run, while this one waited
                    _make(chunks, shape, path, title)
        return np.memmap(path, np.uint8, "r", shape=shape)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _is_whole(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _make(chunks: Iterable[Placed], shape: tuple[int, ...], path: Path, title: str) -> None:
    print(f"{title}: unpacking {shape[0]:,} images into {path.parent}, once", file=sys.stderr, flush=True)
    with atomic_write(path, durable=True) as temporary:
        values, filled = np.memmap(temporary, np.uint8, "w+", shape=shape), 0
        with tqdm(total=shape[0], desc="unpacking", unit=" images", disable=None) as bar:
            for start, images in _readable(chunks):
                values[start : start + len(images)] = images
                filled += len(images)
                bar.update(len(images))
        if filled != shape[0]:
            raise ValueError(f"there are {filled} images, not {shape[0]}")
        values.flush()
        del values
        for other in path.parent.glob("*.bytes"):
            other.unlink()


def _readable(chunks: Iterable[Placed]) -> Iterator[Placed]:
    """Yield the chunks; an archive that cannot be read is no file that cannot be written."""
    try:
        yield from chunks
    except OSError as error:
        raise ValueError(describe(error)) from error


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """Return an image (H, W) or (H, W, 3) of bytes as (C, size, size), smoothed where it shrinks."""
    if image.shape[:2] != (size, size):
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
    return image[None] if image.ndim == 2 else image.transpose(2, 0, 1)
