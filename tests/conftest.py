"""Shape annotations are checked at run time in every test."""

from jaxtyping import install_import_hook

CHECKED = ("data", "distributions", "networks", "objectives", "model", "evaluate", "figures", "noise", "totals")

install_import_hook([f"vae_cli.{name}" for name in CHECKED], "typechecker.checked")
