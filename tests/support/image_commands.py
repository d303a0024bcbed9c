"""vae-encode and vae-reconstruct as the tests of commands call them."""

import numpy as np

from vae_cli.commands import encode, reconstruct
from vae_cli.config import compose

WIDE = [
    "report=false",
    "encoder.hidden=[64]",
    "decoder.hidden=[64]",
    "latent_dim=8",
    "device=cpu",
    "optimizer.lr=3e-3",
    "batch_size=64",
]

ORDER = [*range(1, 12, 2), *range(0, 12, 2)]  # of the files: folder a holds the odd ones


def encoded(run, tmp_path, *settings):
    output = tmp_path / "codes.npz"
    encode.run(compose.compose("encode", [f"checkpoint={run}", f"output={output}", *settings]))
    with np.load(output) as archive:
        return dict(archive)


def reconstructed(run, output, *settings):
    reconstruct.run(compose.compose("reconstruct", [f"checkpoint={run}", f"output={output}", *settings]))
    return output
