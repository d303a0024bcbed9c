"""`vae-reconstruct`: images through a trained model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_cli.build import trained
from vae_cli.commands import image_files
from vae_cli.inference import inputs
from vae_cli.inference.inputs import Inputs, draw_codes
from vae_cli.models.vae import VAE
from vae_cli.reporting import grids
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import write_png, written_or_replaced

GRID = 64  # images in a grid, by default


def run(config: dict[str, Any]) -> None:
    """Write the reconstructions of images; in a grid, below the images.

    Args:
        config: the plain config of `vae-reconstruct`.

    Raises:
        UserError: for a checkpoint or images that cannot be used, or an output that cannot be written.
    """
    kind = config["format"]
    output = image_files.output_path(config["output"], kind, "reconstructions")
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, config["device"], config["allow"])
    images = inputs.read(loaded, config)
    count = min(config["limit"] or (GRID if kind == "grid" else len(images.split)), len(images.split))
    if kind == "grid":
        count = min(count, image_files.LARGEST_GRID)
    pairs = reconstructions(loaded.model, images, count, config["seed"], config["draw"])
    where = written_or_replaced(output)
    with image_files.errors_name(output):
        if kind == "grid":
            above, below = (torch.cat(chunks) for chunks in zip(*pairs))
            write_png(output, grids.pairs(above, below))
        elif kind == "png":
            names = png_names(images, count)
            image_files.check_folder(output, names)
            image_files.write_pngs((below for _, below in pairs), output, names)
        else:
            shape = (count, *loaded.facts.shape)
            image_files.write_npz(output, images.arrays(count), (below for _, below in pairs), shape)
    print(f"{count:,} reconstruction(s) of {config['input']} by {path}: {where}")


@torch.no_grad()
def reconstructions(
    model: VAE, images: Inputs, count: int, seed: int, draw: bool = False
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield images as the model sees them and the images of p(x|z), in chunks on the CPU.

    z is the posterior's mean or, with `draw`, a draw from it.
    """
    for start, x, y in images.chunks(model, count, seed, "reconstructing"):
        q = model.encode(x, y)
        z = draw_codes(model, q, seed, "reconstruct", start)[0] if draw else q.mean
        yield x.cpu(), model.image(z, y).cpu()


def png_names(images: Inputs, count: int) -> list[str]:
    """Return a PNG's name for each image: its file's, or its number where it comes from no file."""
    if images.names is None:
        return image_files.numbered_names(count)
    short = [str(Path(name).with_suffix(".png")) for name in images.names]
    times = Counter(short)
    return [name if times[name] == 1 else f"{full}.png" for name, full in zip(short[:count], images.names)]
