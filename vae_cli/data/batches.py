"""From a split to batches: index selections on the device that holds it, or read ahead from the disk."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.data.images import CHUNK, Split

Batch = tuple[Tensor, Tensor | None]

AHEAD = 4  # batches read before they are asked for
SEEN = 256 * CHUNK  # bytes of a split that `moments` looks at


def pixels(
    split: Split, index: Tensor | slice, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Images as float32 (B, C, H, W) in [0, 1] on a device; drawn binary with its `generator` where the split is
    dynamic."""
    return _pixels(split.select(index), split, device, generator)


def _pixels(
    values: Tensor,
    split: Split,
    device: torch.device,
    generator: torch.Generator | None,
    first: int = 0,
    images: int | None = None,
) -> Tensor:
    values = values.to(device, non_blocking=True)
    if split.dynamic:
        assert generator is not None, "a dynamic split is drawn anew at every use"
        return noise.binarize(values, split.scale, generator, first, images)
    x = values.float()
    return x if split.scale == 1 else x / split.scale


def labels(split: Split, index: Tensor | slice, device: torch.device) -> Tensor | None:
    """Labels (B,) on a device, or None without any."""
    if split.labels is None:
        return None
    found = split.labels[index] if isinstance(index, slice) else split.labels.index_select(0, index)
    return found.to(device, non_blocking=True)


class Batches:
    """The batches of every epoch; each epoch visits each image once, in an order of its own.

    Of several processes each gets its part of every batch, in the order of the batch; one whose part is empty gets the
    batch's first image, so that it has something to take part with, and a `weight` of 0.

    Args:
        split: the training images. Where they lie in a file, or not on the batches' device, the next few batches
            are read in the background.
        batch_size: B, of all processes together; the last batch of an epoch may be smaller.
        seed: order and dynamic binarization are functions of (seed, epoch, batch).
        device: where the batches are wanted, if not where the split lies.
        rank: of this process.
        world_size: how many processes every batch is divided among.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        seed: int,
        device: torch.device | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        self.split, self.seed, self.rank, self.world_size = split, seed, rank, world_size
        self.device = device or split.images.device
        self.batch_size = min(batch_size, len(split))

    def __len__(self) -> int:
        """Batches in an epoch."""
        return -(-len(self.split) // self.batch_size)

    @property
    def largest(self) -> int:
        """Images in a process's part of a batch, at most."""
        return -(-self.batch_size // self.world_size)

    @property
    def whole(self) -> int:
        """Images in this process's part of a whole batch."""
        part = self.part(0)
        return part.stop - part.start

    def size(self, number: int) -> int:
        """Images in batch `number`, of all processes together."""
        return min(self.batch_size, len(self.split) - number * self.batch_size)

    def part(self, number: int) -> slice:
        """The places in batch `number` of what this process gets of it."""
        part = self._part(number)
        return part if part.stop > part.start else slice(0, 1)

    def weight(self, number: int) -> float:
        """How much of batch `number` this process's part is."""
        part = self._part(number)
        return (part.stop - part.start) / self.size(number)

    def _part(self, number: int) -> slice:
        """This rank's share, in order of rank and as even as can be, perhaps empty."""
        size = self.size(number)
        return slice(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """The batches of one epoch from number `start` on, or this process's part of them, each with its number."""
        order = torch.randperm(len(self.split), generator=noise.generator(self.seed, "order", epoch))
        batches = order.to(self.split.images.device).split(self.batch_size)[start:]
        parts = [batch[self.part(number)] for number, batch in enumerate(batches, start)]
        for number, (index, values) in enumerate(self._selected(parts), start):
            generator = None
            if self.split.dynamic:
                generator = noise.generator(self.seed, "binarize", epoch, number, device=self.device)
            first = self.part(number).start
            x = _pixels(values, self.split, self.device, generator, first, self.size(number))
            yield number, (x, labels(self.split, index, self.device))

    def _selected(self, parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        lies_elsewhere = self.split.images.device.type == "cpu" != self.device.type
        if self.split.mapped or lies_elsewhere:
            return _ahead(self._read, parts)
        return ((index, self.split.select(index)) for index in parts)

    def _read(self, index: Tensor) -> tuple[Tensor, Tensor]:
        values = self.split.select(index)
        return index, values.pin_memory() if self.device.type == "cuda" else values


def _ahead(read: Callable[[Tensor], tuple[Tensor, Tensor]], parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """`read` of every part in order, done in the background by threads that keep a few parts ahead."""
    waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
    pool = ThreadPoolExecutor(min(AHEAD, os.cpu_count() or 1), thread_name_prefix="batches")
    try:
        for part in parts:
            waiting.append(pool.submit(read, part))
            if len(waiting) > AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def moments(split: Split) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the images at each value, both (C, H, W) float32; a dynamic split's are those
    of its probabilities. Of more than a gigabyte they are estimated from as much, spread evenly."""
    total = torch.zeros(split.shape, dtype=torch.float64)
    squares = torch.zeros_like(total)
    count = 0
    for images in split.chunks(every=1 + len(split) * split.image_bytes // SEEN):
        values = images.cpu().float()
        total += values.sum(0)
        squares += values.square().sum(0)
        count += len(values)
    mean = total / count
    variance = (squares / count - mean.square()).clamp(min=0)
    return (mean / split.scale).float(), (variance.sqrt() / split.scale).float()
