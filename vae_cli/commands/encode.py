"""`vae-encode`: the latent codes of images."""

from __future__ import annotations

from typing import Any

import torch

from vae_cli.build import trained
from vae_cli.commands import image_files
from vae_cli.errors import counted
from vae_cli.inference import inputs
from vae_cli.inference.codes import codes
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import written_or_replaced


def run(config: dict[str, Any]) -> None:
    """Write the latent codes of images.

    Args:
        config: the plain config of `vae-encode`.

    Raises:
        UserError: for a checkpoint or images that cannot be used, or an output that cannot be written.
    """
    output = image_files.output_path(config["output"], "npz", "codes", has_formats=False)
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, config["device"], config["allow"])
    images = inputs.read(loaded, config)
    count = min(config["limit"] or len(images.split), len(images.split))
    examples = images.chunks(loaded.model, count, config["seed"], "encoding")
    chunks = list(codes(loaded.model, examples, config["seed"]))
    arrays = {name: torch.cat([chunk[name] for chunk in chunks]).numpy() for name in chunks[0]}
    where = written_or_replaced(output)
    with image_files.errors_name(output):
        image_files.write_npz(output, arrays | images.arrays(count))
    print(f"{counted(count, 'code')} of {config['input']} by {path}: {where}")
