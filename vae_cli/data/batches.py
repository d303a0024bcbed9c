"""Batches of a split: selected on the device that holds it, or read ahead from the disk."""

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
Stored = tuple[Tensor, Tensor]  # places of images in their split, and the images in their own type

AHEAD = 4  # batches read before they are asked for
SAMPLED = 256 * CHUNK  # bytes of a split that `moments` reads
QUARTILES = 100_000  # examples at most of which quartiles are taken


def pixels(
    split: Split, index: Tensor | slice, device: torch.device, generator: torch.Generator | None = None
) -> Tensor:
    """Return images as float32 (B, *shape) in [0, 1] on a device.

    A dynamic split is binarized with `generator`.
    """
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
    """Return labels (B,) on a device, or None without any."""
    if split.labels is None:
        return None
    selected = split.labels[index] if isinstance(index, slice) else split.labels.index_select(0, index)
    return selected.to(device, non_blocking=True)


class Batches:
    """The batches of every epoch; each epoch visits each image once, in an order of its own.

    Each rank gets its part of every batch, in the order of the batch. A rank whose part is empty gets the batch's first
    image, so that it can take part in collectives, with a `weight` of 0.

    Args:
        split: the training images. Where they lie in a file, or not on the batches' device, the next few batches
            are read in the background.
        batch_size: B, of all ranks together; the last batch of an epoch may be smaller.
        seed: order and dynamic binarization are functions of (seed, epoch, batch).
        device: of the batches; None is the split's.
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
        """Return the number of batches in an epoch."""
        return -(-len(self.split) // self.batch_size)

    @property
    def largest(self) -> int:
        """The most images that any rank gets of a batch."""
        return -(-self.batch_size // self.world_size)

    @property
    def whole(self) -> int:
        """The images that this rank gets of a full batch."""
        part = self.part(0)
        return part.stop - part.start

    def size(self, number: int) -> int:
        """Return the number of images in batch `number`, of all ranks together."""
        return min(self.batch_size, len(self.split) - number * self.batch_size)

    def part(self, number: int) -> slice:
        """Return the places in batch `number` of this rank's images."""
        part = self._part(number)
        return part if part.stop > part.start else slice(0, 1)

    def weight(self, number: int) -> float:
        """Return the fraction of batch `number` that is this rank's."""
        part = self._part(number)
        return (part.stop - part.start) / self.size(number)

    def _part(self, number: int) -> slice:
        """Return this rank's share, in order of rank and as even as can be, perhaps empty."""
        size = self.size(number)
        return slice(size * self.rank // self.world_size, size * (self.rank + 1) // self.world_size)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[tuple[int, Batch]]:
        """Yield this rank's part of the batches of one epoch from number `start` on, each with its number."""
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

    def _selected(self, parts: Iterable[Tensor]) -> Iterator[Stored]:
        is_copied = self.split.images.device.type == "cpu" != self.device.type
        if self.split.mapped or is_copied:
            return _read_ahead(self._read, parts)
        return ((index, self.split.select(index)) for index in parts)

    def _read(self, index: Tensor) -> Stored:
        values = self.split.select(index)
        return index, values.pin_memory() if self.device.type == "cuda" else values


def _read_ahead(read: Callable[[Tensor], Stored], parts: Iterable[Tensor]) -> Iterator[Stored]:
    """Yield `read` of every part in order, from threads that stay a few parts ahead."""
    waiting: deque[Future[Stored]] = deque()
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


def moments(split: Split, is_centered: bool = False) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of the images at each value, both of an image's shape and float32.

    A dynamic split's are those of its probabilities; missing values do not count. Of more than a gigabyte they are
    estimated from as much, spread evenly. With `is_centered` no digits of a deviation are lost beside a large mean.
    """
    total = torch.zeros(split.shape, dtype=torch.float64)
    squares, count, first = torch.zeros_like(total), torch.zeros_like(total), None
    for images in split.chunks(every=1 + len(split) * split.image_bytes // SAMPLED):
        values = images.cpu().float()
        observed = ~values.isnan()
        if is_centered:
            if first is None:
                first = (values.nan_to_num(0).double().sum(0) / observed.sum(0).clamp(min=1)).float()
            values = (values - first).double()
        values = values.masked_fill(~observed, 0)
        total += values.sum(0)
        squares += values.square().sum(0)
        count += observed.sum(0)
    mean = total / count.clamp(min=1)
    variance = (squares / count.clamp(min=1) - mean.square()).clamp(min=0)
    mean = mean if first is None else mean + first
    return (mean / split.scale).float(), (variance.sqrt() / split.scale).float()


def quartiles(split: Split) -> tuple[Tensor, Tensor]:
    """Return the median, and the distance of the quartiles over that of a standard normal's, of up to 100,000 examples
    spread evenly; missing values do not count."""
    values = split.spread(QUARTILES).select(slice(None)).cpu().float() / split.scale
    low, median, high = torch.nanquantile(values, torch.tensor([0.25, 0.5, 0.75]), dim=0)
    return median, (high - low) / 1.3489795
