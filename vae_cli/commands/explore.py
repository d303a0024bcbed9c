"""`vae-explore`: a page on this machine to move through a trained model's latent space by hand."""

from __future__ import annotations

import secrets
import sys
import threading
import webbrowser
from typing import Any

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.data import Split
from vae_cli.data.download import without_downloads
from vae_cli.errors import ConfigError, UserError
from vae_cli.inference.inputs import choose_split, load_data
from vae_cli.runs import checkpoint

EXTRA = "vae-explore needs starlette and uvicorn: pip install 'vae-cli[explore]'"


def run(config: dict[str, Any]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        config: the plain config of `vae-explore`.

    Raises:
        UserError: for a checkpoint that cannot be used, a port that cannot be had, or a missing package.
    """
    try:
        from vae_cli.exploring import server
        from vae_cli.exploring.explorer import Explorer
    except ModuleNotFoundError as error:
        if error.name not in ("starlette", "uvicorn"):
            raise
        raise ConfigError(EXTRA) from error
    path = checkpoint.find(config["checkpoint"])
    bound = server.bind(config["port"])
    loaded = trained.load(path, config["device"], config["allow"], mapped=False)
    test, reason = _test_images(loaded, config)
    explorer = Explorer(loaded, test, config["seed"])
    token = secrets.token_urlsafe(24)
    address = f"http://{server.ADDRESS}:{bound.getsockname()[1]}/{token}/"
    print(f"{path}: {address} (Ctrl-C ends it)", flush=True)
    if config["open"]:  # in a thread, since a browser in the terminal would keep the server from answering it
        threading.Thread(target=_open, args=(address,), daemon=True).start()
    application = server.application(explorer, token, config["checkpoint"], reason)
    with bound:
        server.server(application).run(sockets=[bound])


def _open(address: str) -> None:
    if not webbrowser.open(address):
        print("note: no browser was found; open the address by hand", file=sys.stderr, flush=True)


def _test_images(loaded: Trained, config: dict[str, Any]) -> tuple[Split | None, str]:
    """Return the test images, or None and why there are none here; a path that was named has to be right."""
    try:
        with without_downloads():
            return choose_split(load_data(loaded, config), "test", loaded), ""
    except UserError as error:
        if config["dataset"]["path"] is not None:
            raise
        print(f"note: no test images, so no neighbours: {error}", file=sys.stderr)
        return None, str(error)
