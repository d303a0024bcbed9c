"""Examples with labels or factors: as numpy arrays when a set is loaded, as tensors when it is used.

They are called images, and may have any shape.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from vae_cli.data.mapped import as_tensor, is_mapped

CHUNK = 1 << 22  # bytes of images that are read together


@dataclass(frozen=True)
class Images:
    """Images in memory, or in a file mapped into it.

    Args:
        values: (M, *shape), uint8 or float. Values are 0 or 1 for support `binary`, bytes for `levels256`,
            numbers in [0, 1] for `unit`.
        labels: (N,) int64, or None.
        rows: (N,) int64, which of the values these images are, in order; None for all of them.
        numbers: (N,) int64, where each stood before some were taken; None: where it stands.
        factors: (N, F) int64, the value of each factor of variation, from 0 on; or None.
    """

    values: np.ndarray
    labels: np.ndarray | None = None
    rows: np.ndarray | None = None
    numbers: np.ndarray | None = None
    factors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.values if self.rows is None else self.rows)

    def take(self, index: np.ndarray) -> Images:
        """Return some of the images; of a mapped file only their numbers, none of their pixels."""
        labels = None if self.labels is None else self.labels[index]
        rows = index if self.rows is None else self.rows[index]
        numbers = index if self.numbers is None else self.numbers[index]
        factors = None if self.factors is None else self.factors[index]
        if is_mapped(self.values):
            return Images(self.values, labels, rows, numbers, factors)
        return Images(self.values[rows], labels, None, numbers, factors)

    def join(self, other: Images) -> Images:
        """Return these images, then the others."""
        labels, numbers = _joined(self.labels, other.labels), _joined(self.numbers, other.numbers)
        factors = _joined(self.factors, other.factors)
        if self.values is other.values and self.rows is not None and other.rows is not None:
            return Images(self.values, labels, np.concatenate([self.rows, other.rows]), numbers, factors)
        return Images(np.concatenate([self.values, other.values]), labels, None, numbers, factors)


def _joined(one: np.ndarray | None, other: np.ndarray | None) -> np.ndarray | None:
    return None if one is None or other is None else np.concatenate([one, other])


@dataclass(frozen=True)
class Split:
    """One split as training and evaluation use it.

    Args:
        images: (M, *shape), uint8 or float.
        labels: (N,) int64, or None.
        scale: the divisor that brings the values into [0, 1].
        dynamic: every use draws binary pixels anew, with the values as probabilities.
        rows: (N,) int64, which of the images are this split's; None for all of them.
        mapped: the images lie in a file.
        numbers: (N,) int64, where each image stood in its file; None: where it stands in the split.
        factors: (N, F) int64, the value of each factor of variation, from 0 on; or None.
    """

    images: Tensor
    labels: Tensor | None
    scale: float
    dynamic: bool = False
    rows: Tensor | None = None
    mapped: bool = False
    numbers: Tensor | None = None
    factors: Tensor | None = None

    @staticmethod
    def of(images: Images, scale: float, dynamic: bool = False) -> Split:
        """Return the split of a set's images, without a copy unless torch needs one."""
        mapped = is_mapped(images.values)
        values = images.values if mapped else np.ascontiguousarray(images.values)
        labels = None if images.labels is None else torch.from_numpy(np.ascontiguousarray(images.labels))
        rows = None if images.rows is None else torch.from_numpy(images.rows)
        numbers = None if images.numbers is None else torch.from_numpy(images.numbers)
        factors = None if images.factors is None else torch.from_numpy(np.ascontiguousarray(images.factors))
        return Split(as_tensor(values), labels, scale, dynamic, rows, mapped, numbers, factors)

    def __len__(self) -> int:
        return len(self.images if self.rows is None else self.rows)

    @property
    def shape(self) -> torch.Size:
        """The shape of an image, such as (C, H, W)."""
        return self.images.shape[1:]

    @property
    def image_bytes(self) -> int:
        """Bytes of one image."""
        return self.shape.numel() * self.images.element_size()

    def select(self, index: Tensor | slice) -> Tensor:
        """Return the images (B, *shape) at an index, in their own type and on their own device."""
        if self.rows is not None:
            index = self.rows[index]
        if isinstance(index, slice):
            return self.images[index]
        if self.mapped:
            # numpy reads them in the thread that asks; torch would wake a team of threads for it.
            return torch.from_numpy(self.images.numpy()[index.numpy()])
        # Ten times as fast as images[index], which asks what kind of index it is for every image.
        return self.images.index_select(0, index)

    @property
    def in_file(self) -> Tensor:
        """Where each image stood in its file, (N,) int64."""
        return torch.arange(len(self)) if self.numbers is None else self.numbers

    def spread(self, most: int) -> Split:
        """Return at most so many of the images, spread evenly over the set."""
        if len(self) <= most:
            return self
        return self.take(torch.linspace(0, len(self) - 1, most, dtype=torch.float64).long())

    def take(self, chosen: Tensor) -> Split:
        """Return some of the images, by their numbers (n,), without a copy."""
        labels = None if self.labels is None else self.labels[chosen.to(self.labels.device)]
        factors = None if self.factors is None else self.factors[chosen.to(self.factors.device)]
        numbers, chosen = self.in_file[chosen], chosen.to(self.images.device)
        rows = chosen if self.rows is None else self.rows[chosen]
        return replace(self, labels=labels, rows=rows, numbers=numbers, factors=factors)

    def chunks(self, every: int = 1) -> Iterator[Tensor]:
        """Yield all images in order, some megabytes at a time; or one such chunk out of every few."""
        size = max(1, CHUNK // self.image_bytes)
        for start in range(0, len(self), size * every):
            yield self.select(slice(start, start + size))

    def has_missing(self) -> bool:
        """Return whether any value is missing."""
        return self.images.is_floating_point() and any(bool(chunk.isnan().any()) for chunk in self.chunks())

    def to(self, device: torch.device) -> Split:
        """Return the split in a device's memory; a mapped one stays as it is on the CPU."""
        labels = None if self.labels is None else self.labels.to(device)
        factors = None if self.factors is None else self.factors.to(device)
        if not self.mapped:
            return replace(self, images=self.images.to(device), labels=labels, factors=factors)
        if device.type == "cpu":
            return self
        images = torch.empty((len(self), *self.shape), dtype=self.images.dtype, device=device)
        start = 0
        for chunk in self.chunks():
            images[start : start + len(chunk)] = chunk.to(device)
            start += len(chunk)
        return replace(self, images=images, labels=labels, rows=None, mapped=False, factors=factors)
