"""A trained model from a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from vae_cli.build import own_parts, parts
from vae_cli.build.device import choose_device
from vae_cli.build.settings import check_values
from vae_cli.data import DataFacts
from vae_cli.errors import CheckpointError, ConfigError, describe
from vae_cli.models import Model
from vae_cli.runs import checkpoint
from vae_cli.system.paths import expand

Config = dict[str, Any]


class Trained(NamedTuple):
    """A model ready to be used, with the facts about its data, the config it was trained with, and how far."""

    model: Model
    facts: DataFacts
    settings: Config
    progress: dict[str, Any]

    @property
    def step(self) -> int:
        """The steps of its training."""
        return self.progress["step"]


def load(path: Path, device_name: str, allow: str | None = None, mapped: bool = True) -> Trained:
    """Build the model of a checkpoint.

    Args:
        path: the file.
        device_name: as in `device=`.
        allow: a package besides vae_cli that the file's config may build classes from.
        mapped: leave the weights in the file, which nobody must write to meanwhile; else they are copied.

    Raises:
        CheckpointError: if the file is damaged, or its parts do not fit together.
        ConfigError: if its config names what it may not, or the device is missing.
    """
    device = choose_device(device_name)
    contents = checkpoint.load(path)
    try:
        facts = DataFacts.of(contents["data"])
        check_values(contents["config"])
        own_parts.check_asked_for(contents["config"])
        trusted = () if allow is None else (allow,)
        weights = checkpoint.weights(contents)
        if not mapped:
            weights = {name: value.clone() for name, value in weights.items()}
        model = parts.model_with(contents["config"], facts, trusted, weights)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    except Exception as error:
        raise CheckpointError(f"{path}: its parts do not fit together: {describe(error)}") from error
    return Trained(model.to(device).eval(), facts, contents["config"], contents["progress"])


def with_local_folders(stored: Config, data_dir: str | None) -> Config:
    """Return a stored config with this machine's folders where its own do not exist here."""
    settings = dict(stored)
    if stored["data_dir"] is None or not expand(stored["data_dir"]).is_dir():
        settings["data_dir"] = data_dir
    if "cache" in stored["dataset"]:  # a file does not choose where something is written
        settings["dataset"] = stored["dataset"] | {"cache": None}
    return settings
