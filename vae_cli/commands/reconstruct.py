"""`vae-reconstruct`: images through a trained model."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_cli.build import trained
from vae_cli.commands import filled_files, image_files, row_files
from vae_cli.errors import counted
from vae_cli.inference import inputs
from vae_cli.inference.codes import reconstructions
from vae_cli.inference.inputs import Inputs
from vae_cli.reporting import grids
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import write_png, written_or_replaced

GRID = 64  # images in a grid, by default


@torch.no_grad()
def run(config: dict[str, Any]) -> None:
    """Write the reconstructions of images; in a grid, below the images.

    Args:
        config: the plain config of `vae-reconstruct`.

    Raises:
        UserError: for a checkpoint or images that cannot be used, or an output that cannot be written.
    """
    kind = config["format"]
    if kind != "auto":  # mistakes in a name are told before a model is loaded
        image_files.output_path(config["output"], kind, "reconstructions")
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, config["device"], config["allow"])
    kind = image_files.format_of(kind, config["output"], loaded.facts)
    output = image_files.output_path(config["output"], kind, "reconstructions")
    images = inputs.read(loaded, config)
    count = min(config["limit"] or (GRID if kind == "grid" else len(images.split)), len(images.split))
    if kind == "grid":
        count = min(count, image_files.LARGEST_GRID)
    examples = images.chunks(loaded.model, count, config["seed"], "reconstructing", loaded.facts.noun)
    pairs = reconstructions(loaded.model, examples, config["seed"], config["draw"], config["levels"])
    is_partial = config["fill"] == "missing" or (config["fill"] == "auto" and images.split.has_missing())
    if images.table is not None and config["fill"] == "auto" and not is_partial:
        print("note: no cell is empty, so every value is a reconstruction", file=sys.stderr)
    image_files.keep(output, [config["input"], loaded.settings["dataset"].get("path")])
    where = written_or_replaced(output)
    with image_files.errors_name(output):
        if kind == "grid":
            above, below = (torch.cat(chunks).cpu() for chunks in zip(*pairs))
            write_png(output, grids.pairs(above, below))
        elif kind == "png":
            names = png_names(images, count)
            image_files.check_folder(output, names)
            image_files.write_pngs((below.cpu() for _, below in pairs), output, names)
        elif kind in image_files.OF_ROWS:
            columns = row_files.columns_of(loaded.facts)
            if images.table is not None:
                filled_files.write(images.table, output, kind, filled_files.cells(pairs, columns, is_partial))
            else:
                rows = row_files.rows_of((x.numpy() for x in _filled(pairs, is_partial)), columns)
                row_files.write(output, kind, rows)
        else:
            shape = (count, *loaded.facts.shape)
            image_files.write_npz(output, images.arrays(count), _filled(pairs, is_partial), shape)
    print(f"{counted(count, 'reconstruction')} of {config['input']} by {path}: {where}")


def _filled(pairs: Iterable[tuple[Tensor, Tensor]], is_partial: bool) -> Iterator[Tensor]:
    """Yield reconstructions on the CPU, or the examples with those of their missing values."""
    for x, shown in pairs:
        yield (torch.where(x.isnan(), shown, x) if is_partial else shown).cpu()


def png_names(images: Inputs, count: int) -> list[str]:
    """Return a PNG's name for each image: its file's, or its number where it comes from no file."""
    if images.names is None:
        return image_files.numbered_names(count)
    short = [str(Path(name).with_suffix(".png")) for name in images.names]
    times = Counter(short)
    return [name if times[name] == 1 else f"{full}.png" for name, full in zip(short[:count], images.names)]
