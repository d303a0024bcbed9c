"""Random numbers as functions of the place where they are used.

Training noise, shuffling and binarization are seeded by (seed, purpose, epoch, batch …) and never by a running
stream: a resumed run, another number of processes and an evaluation in between see the same numbers.
"""

from __future__ import annotations

from hashlib import blake2b

import torch
from torch import Tensor

Place = int | str

BLOCK = 250  # evaluation examples whose noise is drawn together


def key(seed: int, *place: Place) -> int:
    """Return a 63-bit seed for one place, such as `key(seed, "noise", epoch, batch)`."""
    text = "/".join(str(part) for part in (seed, *place))
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, *place: Place, device: torch.device | str = "cpu") -> torch.Generator:
    """Return a generator on `device`, seeded for one place."""
    return torch.Generator(device).manual_seed(key(seed, *place))


def binarize(
    values: Tensor, scale: float, generator: torch.Generator, first: int = 0, images: int | None = None
) -> Tensor:
    """Draw every value once: 1 with probability `values / scale`, else 0; float32 of the same shape.

    Probabilities are rounded to 24 bits; 0 and `scale` always give 0 and 1. The values may be part of a batch of
    `images` examples, from number `first` on: each is drawn as it is with the whole batch.
    """
    thresholds = (values.float() / scale).mul_(2**24).sub_(2**23)
    whole = values.shape if images is None else torch.Size((images, *values.shape[1:]))
    return _uniform_24_bits(whole, generator)[first : first + len(values)].lt_(thresholds)


def _uniform_24_bits(shape: torch.Size, generator: torch.Generator) -> Tensor:
    """Return uniform whole numbers in [−2²³, 2²³) as float32."""
    if generator.device.type != "cpu":
        return torch.rand(shape, generator=generator, device=generator.device).mul_(2**24).sub_(2**23)
    # Two numbers out of every 64 random bits: twice as fast as torch.rand, and on a small model's step it shows.
    words = torch.empty((shape.numel() + 1) // 2, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return words.view(torch.int32)[: shape.numel()].bitwise_right_shift_(8).float().view(shape)


def by_image(count: int, draws: int, dim: int, seed: int, *place: Place, start: int = 0) -> Tensor:
    """Return standard normal noise (draws, count, dim) of the examples `start … start + count`, on the CPU.

    An example's numbers depend on the seed, the place, its own index and the number of draws alone.
    """
    first, last = start // BLOCK, (start + count - 1) // BLOCK
    blocks = [
        torch.randn(draws, BLOCK, dim, generator=generator(seed, *place, block)) for block in range(first, last + 1)
    ]
    offset = start - first * BLOCK
    return torch.cat(blocks, dim=1)[:, offset : offset + count]
