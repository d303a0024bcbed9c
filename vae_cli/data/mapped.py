"""Arrays that stay on the disk: mapped read-only, and written chunk by chunk."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vae_cli.errors import DataError, describe
from vae_cli.system.cache import cache_dir


def is_mapped(values: np.ndarray) -> bool:
    """Return whether an array lies in a file and not in memory."""
    return isinstance(values, np.memmap)


def as_tensor(values: np.ndarray) -> Tensor:
    """Return a tensor over the array's own memory, for reading only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def scratch(chunks: Iterable[np.ndarray], dtype: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
    """Write an array to a temporary file in the user's cache and map it; the file goes when the process ends.

    Args:
        chunks: its rows in order, some at a time.
        dtype: of the array.
        shape: of all chunks together.

    Raises:
        DataError: if the cache directory cannot be written or has no room.
    """
    folder = cache_dir()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            for chunk in chunks:
                file.write(np.ascontiguousarray(chunk, dtype).data)
            file.flush()
            return np.memmap(file, dtype, "r", shape=shape)
    except OSError as error:
        raise cannot_write(folder, error) from error


def cannot_write(folder: Path, error: OSError) -> DataError:
    """Return the error about a cache directory that cannot be written."""
    return DataError(
        f"{folder} cannot be written ({describe(error)}); make room, or name another cache with dataset.cache= where "
        "the data set has it, else with XDG_CACHE_HOME="
    )
