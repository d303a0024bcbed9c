"""Random numbers as functions of where they are used.

Training noise, shuffling and binarization are seeded by (seed, purpose, epoch, batch …) and never by a running
stream: a resumed run, another number of processes and an evaluation in between see the same numbers.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

Place = int | str

BLOCK = 250  # evaluation images whose noise is drawn together


def key(seed: int, *place: Place) -> int:
    """A 63-bit seed for one place, such as `key(seed, "noise", epoch, batch)`."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *place: Place, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device` that starts at one place."""
    return torch.Generator(device).manual_seed(key(seed, *place))


def binarize(values: Tensor, scale: float, generator: torch.Generator) -> Tensor:
    """Draw every pixel once: 1 with probability `values / scale`, else 0; float32 of the same shape."""
    drawn = torch.rand(values.shape, generator=generator, device=values.device)
    return drawn.mul_(scale).lt_(values)


def by_image(count: int, draws: int, dim: int, seed: int, *place: Place, start: int = 0) -> Tensor:
    """Standard normal noise (draws, count, dim) of the images `start … start + count`, on the CPU.

    Each image's numbers depend on the seed, the place and its own index alone, whatever images are asked for with
    it and on whatever device they are used.
    """
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = [
        torch.randn(draws, BLOCK, dim, generator=generator(seed, *place, block)) for block in range(first, last + 1)
    ]
    offset = start - first * BLOCK
    return torch.cat(blocks, dim=1)[:, offset : offset + count]
