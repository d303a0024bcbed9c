"""From a split to batches: index selections on the device that holds it, no image touched by Python."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.data.base import Split

Batch = tuple[Tensor, Tensor | None]


def pixels(
    split: Split, index: Tensor | slice, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Images as float32 (B, C, H, W) in [0, 1] on a device; drawn binary with its `generator` where the split is
    dynamic."""
    values = _select(split.images, index).to(device, non_blocking=True)
    if split.dynamic:
        assert generator is not None, "a dynamic split is drawn anew at every use"
        return noise.binarize(values, split.scale, generator)
    x = values.float()
    return x if split.scale == 1 else x / split.scale


def labels(split: Split, index: Tensor | slice, device: torch.device) -> Tensor | None:
    """Labels (B,) on a device, or None without any."""
    return None if split.labels is None else _select(split.labels, index).to(device, non_blocking=True)


def _select(values: Tensor, index: Tensor | slice) -> Tensor:
    # Ten times as fast as values[index], which asks what kind of index it is for every image.
    return values[index] if isinstance(index, slice) else values.index_select(0, index)


class Batches:
    """The batches of every epoch; each epoch visits each image once, in an order of its own.

    Args:
        split: the training images.
        batch_size: B; the last batch of an epoch may be smaller.
        seed: order and dynamic binarization are functions of (seed, epoch, batch).
        device: where the batches are wanted, if not where the split lies.
    """

    def __init__(self, split: Split, batch_size: int, seed: int, device: torch.device | None = None) -> None:
        self.split, self.seed = split, seed
        self.device = device or split.images.device
        self.batch_size = min(batch_size, len(split))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.split) // self.batch_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """The batches of one epoch from number `start` on, each with its number."""
        order = torch.randperm(len(self.split), generator=noise.generator(self.seed, "order", epoch))
        order = order.to(self.split.images.device)
        for number in range(start, len(self)):
            index = order[number * self.batch_size : (number + 1) * self.batch_size]
            generator = None
            if self.split.dynamic:
                generator = noise.generator(self.seed, "binarize", epoch, number, device=self.device)
            x = pixels(self.split, index, self.device, generator)
            yield number, (x, labels(self.split, index, self.device))


def moments(split: Split, chunk: int = 2000) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the images at each value, both (C, H, W) float32; a dynamic split's are those
    of its probabilities."""
    total = torch.zeros(split.images.shape[1:], dtype=torch.float64)
    squares = torch.zeros_like(total)
    for images in split.images.cpu().split(chunk):
        values = images.float()
        total += values.sum(0)
        squares += values.square().sum(0)
    mean = total / len(split)
    variance = (squares / len(split) - mean.square()).clamp(min=0)
    return (mean / split.scale).float(), (variance.sqrt() / split.scale).float()
