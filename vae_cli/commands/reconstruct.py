"""`vae-reconstruct`: images through a trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vae_cli import noise
from vae_cli.build import trained
from vae_cli.commands import image_files, inputs
from vae_cli.commands.inputs import Inputs
from vae_cli.evaluation.bounds import batch
from vae_cli.models.vae import VAE
from vae_cli.reporting import grids
from vae_cli.runs import checkpoint

SHOWN = 64  # images in a grid, if nobody asks for more
CHUNK = noise.BLOCK  # images that go through the model together


def run(settings: dict[str, Any]) -> None:
    """Write the reconstructions of images, beside them in a grid.

    Args:
        settings: the plain config of `vae-reconstruct`.

    Raises:
        UserError: for a checkpoint or images that cannot be used, or an output that cannot be written.
    """
    kind = settings["format"]
    output = image_files.place(settings["output"], kind, "reconstructions")
    path = checkpoint.find(settings["checkpoint"])
    used = trained.load(path, settings["device"], settings["allow"])
    given = inputs.read(used, settings)
    limit = settings["limit"] or (SHOWN if kind == "grid" else len(given.split))
    count = min(limit, len(given.split), image_files.LARGEST_GRID if kind == "grid" else limit)
    chunks = reconstructions(used.model, given, count, settings["seed"], settings["draw"])
    with image_files.naming(output):
        if kind == "grid":
            above, below = (torch.cat(parts) for parts in zip(*chunks))
            grids.save(grids.pairs(above, below), output)
        elif kind == "png":
            names = png_names(given, count)
            image_files.check_folder(output, names)
            image_files.write_pngs((below for _, below in chunks), output, names)
        else:
            shape = (count, *used.facts.shape)
            image_files.write_npz((below for _, below in chunks), output, shape, _arrays(given, count))
    print(f"{count:,} reconstruction(s) of {settings['input']} by {path} in {output}")


@torch.no_grad()
def reconstructions(
    model: VAE, given: Inputs, count: int, seed: int, draw: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Images as the model sees them and the mean of p(x|z), chunk by chunk on the CPU, for z the posterior's mean or,
    with `draw`, a draw from it."""
    for start in _starts(count, "reconstructing"):
        x, y = batch(model, given.split, slice(start, min(start + CHUNK, count)), seed)
        q = model.encode(x, y)
        z = _draws(model, q, seed, "reconstruct", start, 1)[0] if draw else q.mean
        yield x.cpu(), model.decode(z, y).mean.cpu()


def _starts(count: int, title: str) -> Iterator[int]:
    with tqdm(total=count, desc=title, unit=" images", disable=None, leave=False) as bar:
        for start in range(0, count, CHUNK):
            yield start
            bar.update(min(CHUNK, count - start))


def _draws(model: VAE, q: Distribution, seed: int, place: str, start: int, draws: int) -> Tensor:
    """Draws (K, B, D) of the posteriors of the images from number `start` on."""
    epsilon = noise.by_image(q.batch_shape[0], draws, model.noise_dim, seed, place, start=start)
    return q.rsample_and_log_prob(epsilon.to(next(model.parameters()).device))[0]  # type: ignore[attr-defined]


def _arrays(given: Inputs, count: int) -> dict[str, np.ndarray]:
    """Labels and file names, where there are any, in the images' order."""
    found = {}
    if given.split.labels is not None:
        found["label"] = given.split.labels[:count].cpu().numpy()
    if given.names is not None:
        found["file"] = np.array(given.names[:count])
    return found


def png_names(given: Inputs, count: int) -> list[str]:
    """A PNG's name for each image: its file's, its number where it has none."""
    if given.names is None:
        return image_files.numbered(count)
    short = [str(Path(name).with_suffix(".png")) for name in given.names]
    often = Counter(short)
    return [name if often[name] == 1 else f"{full}.png" for name, full in zip(short[:count], given.names)]
