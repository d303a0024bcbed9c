"""The interface for Python code; `import vae_cli` brings it along without importing torch."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_cli.inference.trained_model import TrainedModel


def load(path: str | os.PathLike[str], device: Any = "auto", allow: str | None = None) -> TrainedModel:
    """Return a trained model, ready to be used.

    Args:
        path: a run directory (then its best checkpoint, else its last), a checkpoint file, or `hf://owner/name`.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow: a package besides vae_cli that the file's config may build classes from.

    Raises:
        CheckpointError: if there is no checkpoint, or it is damaged.
        ConfigError: if its config names classes of another package, or the device is missing.
    """
    from vae_cli.build import trained
    from vae_cli.build.settings import RULES
    from vae_cli.constraints import check_value
    from vae_cli.inference.trained_model import TrainedModel
    from vae_cli.runs import checkpoint

    check_value("device", str(device), RULES["device"])
    file = checkpoint.find(os.fspath(path))
    return TrainedModel(trained.load(file, str(device), allow), file)
