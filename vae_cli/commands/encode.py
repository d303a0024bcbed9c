"""`vae-encode`: the latent codes of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution

from vae_cli.build import trained
from vae_cli.commands import image_files, inputs
from vae_cli.commands.inputs import Inputs
from vae_cli.commands.reconstruct import CHUNK, _arrays, _draws, _starts
from vae_cli.evaluation.bounds import batch
from vae_cli.models.vae import VAE
from vae_cli.runs import checkpoint

DRAWS = 200  # of a posterior whose standard deviation has no closed form


def encode(settings: dict[str, Any]) -> None:
    """Write the latent codes of images.

    Args:
        settings: the plain config of `vae-encode`.

    Raises:
        UserError: as `run`.
    """
    output = image_files.place(settings["output"], "npz", "codes", several=False)
    path = checkpoint.find(settings["checkpoint"])
    used = trained.load(path, settings["device"], settings["allow"])
    given = inputs.read(used, settings)
    count = min(settings["limit"] or len(given.split), len(given.split))
    parts = list(codes(used.model, given, count, settings["seed"]))
    arrays: dict[str, Any] = {name: torch.cat([part[name] for part in parts]).numpy() for name in parts[0]}
    with image_files.naming(output):
        image_files.write_arrays(output, arrays | _arrays(given, count))
    print(f"{count:,} code(s) of {settings['input']} by {path} in {output}")


@torch.no_grad()
def codes(model: VAE, given: Inputs, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """`mean`, `std` and one `sample` (N, D) of q(z|x), chunk by chunk on the CPU.

    A flow's mean and standard deviation have no closed form: they are those of 200 draws.
    """
    for start in _starts(count, "encoding"):
        q = model.encode(*batch(model, given.split, slice(start, min(start + CHUNK, count)), seed))
        mean, std = _moments(model, q, seed, start)
        sample = _draws(model, q, seed, "codes", start, 1)[0]
        yield {"mean": mean.cpu(), "std": std.cpu(), "sample": sample.cpu()}


def _moments(model: VAE, q: Distribution, seed: int, start: int) -> tuple[Tensor, Tensor]:
    try:
        return q.mean, q.stddev
    except NotImplementedError:
        z = _draws(model, q, seed, "moments", start, DRAWS)
        return z.mean(0), z.std(0)
