"""One safetensors file for other people: weights, config and facts about the data, and nothing of this machine."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from vae_cli.build.options import option
from vae_cli.errors import without_passwords
from vae_cli.runs import checkpoint
from vae_cli.system.paths import expand

PATHS = ("data_dir", "resume", "path", "cache")  # keys whose values are paths of this machine
_OF_FILE = r"file:/|[a-z][\w+.-]*:////"  # the beginning of an address that is an absolute path


def write(source: Path, path: Path) -> None:
    """Write the weights of a checkpoint to another file, as a checkpoint that every command opens.

    Raises:
        CheckpointError: if the checkpoint cannot be read.
        OSError: if the file cannot be written.
    """
    contents = checkpoint.load(source)
    checkpoint.save_weights(path, contents | {"config": shareable(contents["config"])})


def shareable(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config with `logger=none`, without credentials, and with null for every path of this machine.

    Paths are the values of the keys for paths, and any absolute path. Addresses of files, such as file:///home/me or
    sqlite:////home/me/x.db, are paths too. Of other addresses, what stands before the @ of the host is hidden: a user's
    name and password, or a token.
    """

    def kept(key: str, value: Any) -> Any:
        if isinstance(value, dict):
            return {inside: kept(inside, each) for inside, each in value.items()}
        if isinstance(value, list):
            return [kept("", each) for each in value]
        if not isinstance(value, str):
            return value
        is_address = re.match(_OF_FILE, value, re.IGNORECASE) is not None
        is_path = key in PATHS or value.startswith("~") or is_address or expand(value).is_absolute()
        return None if is_path else re.sub(r"://[^/@\s]+@", "://***@", without_passwords(value))

    settings = {key: kept(key, value) for key, value in config.items()}
    return settings | ({"logger": option("logger", "none")} if "logger" in settings else {})
