"""Shape annotations are checked at run time in every test; torch gets as many threads as a laptop spares."""

import os

os.environ.setdefault("VAE_TRACEBACK", "")

from jaxtyping import install_import_hook

install_import_hook(
    [
        f"vae_cli.{name}"
        for name in (
            "data",
            "distributions",
            "networks",
            "objectives",
            "model",
            "evaluate",
            "figures",
            "noise",
            "totals",
        )
    ],
    "typechecker.checked",
)
