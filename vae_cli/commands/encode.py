"""`vae-encode`: the latent codes of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from vae_cli.build import trained
from vae_cli.commands import image_files
from vae_cli.inference import inputs
from vae_cli.inference.inputs import Inputs, draw_codes
from vae_cli.models.vae import VAE
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import written_or_replaced

DRAWS = 200  # of a posterior whose mean and standard deviation have no closed form


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
    chunks = list(codes(loaded.model, images, count, config["seed"]))
    arrays = {name: torch.cat([chunk[name] for chunk in chunks]).numpy() for name in chunks[0]}
    where = written_or_replaced(output)
    with image_files.errors_name(output):
        image_files.write_npz(output, arrays | images.arrays(count))
    print(f"{count:,} code(s) of {config['input']} by {path}: {where}")


@torch.no_grad()
def codes(model: VAE, images: Inputs, count: int, seed: int) -> Iterator[dict[str, Tensor]]:
    """Yield `mean`, `std` and one `sample` (N, D) of q(z|x) in chunks on the CPU.

    A flow's mean and standard deviation have no closed form: they are those of 200 draws.
    """
    for start, x, y in images.chunks(model, count, seed, "encoding"):
        q = model.encode(x, y)
        if q.provides("moments"):
            mean, std = q.moments()
        else:
            z = draw_codes(model, q, seed, "moments", start, DRAWS)
            mean, std = z.mean(0), z.std(0)
        sample = draw_codes(model, q, seed, "codes", start)[0]
        yield {"mean": mean.cpu(), "std": std.cpu(), "sample": sample.cpu()}
