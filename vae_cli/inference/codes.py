"""Latent codes and reconstructions of examples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.data import Split
from vae_cli.distributions import LatentDistribution
from vae_cli.errors import ConfigError
from vae_cli.evaluation.bounds import batch
from vae_cli.models import Model
from vae_cli.models.hierarchy import need_hierarchy

CHUNK = noise.BLOCK  # examples that go through the model together
DRAWS = 200  # of a posterior whose mean and standard deviation have no closed form

Chunk = tuple[int, Tensor, Tensor | None]  # the first example's number, x, y


def chunks(model: Model, split: Split, count: int, seed: int) -> Iterator[Chunk]:
    """Yield the first examples of a split in chunks on the model's device."""
    for start in range(0, count, CHUNK):
        yield start, *batch(model, split, slice(start, min(start + CHUNK, count)), seed)


def draw_codes(model: Model, q: LatentDistribution, seed: int, stream: str, start: int, draws: int = 1) -> Tensor:
    """Return draws z (K, B, D) from the posteriors of the images from number `start` on."""
    epsilon = noise.by_image(q.batch_shape[0], draws, model.noise_dim, seed, stream, start=start)
    return q.rsample_and_log_prob(epsilon.to(next(model.parameters()).device))[0]


@torch.no_grad()
def codes(model: Model, examples: Iterable[Chunk], seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield `mean`, `std` and one `sample` (N, D) of q(z|x) in chunks on the CPU.

    A flow's mean and standard deviation have no closed form: they are those of 200 draws. In a hierarchy a level's are
    given the means of the levels above. Its parts of the three arrays are there too, (N, D_l), by names such as
    `z1_mean`.
    """
    for start, x, y in examples:
        q = model.encode(x, y)
        if q.provides("moments"):
            mean, std = q.moments()
        else:
            z = draw_codes(model, q, seed, "moments", start, DRAWS)
            mean, std = z.mean(0), z.std(0)
        sample = draw_codes(model, q, seed, "codes", start)[0]
        arrays = {"mean": mean.cpu(), "std": std.cpu(), "sample": sample.cpu()}
        yield arrays if model.is_flat else arrays | by_level(model, arrays)


def by_level(model: Model, arrays: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the levels of arrays (N, D) one by one: `z1_mean` (N, D_1) is the part of `mean`."""
    parts = {name: model.split(values) for name, values in arrays.items()}
    return {f"{level}_{name}": parts[name][number] for number, level in enumerate(model.level_sizes) for name in arrays}


def reconstructions(
    model: Model, examples: Iterable[Chunk], seed: int = 0, draw: bool = False, levels: int | None = None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield examples as the model sees them and the images of p(x|z), in chunks on the model's device.

    z is the posterior's mean or, with `draw`, a draw from it; of a hierarchy it may be so in the top `levels` alone,
    with the prior's means given those, or draws, below.

    Raises:
        ConfigError: for a number of levels that the model does not have.
    """
    hierarchy = None if levels is None else need_hierarchy(model, f"levels={levels}")
    if hierarchy is not None and levels is not None and levels > len(names := list(model.level_sizes)):
        raise ConfigError(f"levels={levels}: this model has {len(names)}, z1 to {names[-1]}; give 1 to {len(names)}")
    for start, x, y in examples:
        q = model.encode(x, y)
        z = draw_codes(model, q, seed, "reconstruct", start)[0] if draw else q.mean
        if hierarchy is not None and levels is not None:
            epsilon = noise.by_image(len(z), 1, model.noise_dim, seed, "reconstruct", start=start)[0].to(z)
            z = hierarchy.complete(z, levels, epsilon if draw else None, y)
        yield x, model.likelihood.image(model.decode_for(x, z, y))
