"""Arrays that stay on the disk: mapped read-only, and made chunk by chunk."""

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
    """Whether an array lies in a file and not in memory."""
    return isinstance(values, np.memmap)


def as_tensor(values: np.ndarray) -> Tensor:
    """The array's own memory as a tensor, which nobody writes to, whether it could be written or not."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        return torch.from_numpy(values)


def scratch(chunks: Iterable[np.ndarray], dtype: np.dtype | type, shape: tuple[int, ...]) -> np.ndarray:
    """An array put together on the disk, in the user's cache, in a file that is gone when the process is.

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
        raise unwritable(folder, error) from error


def unwritable(folder: Path, error: OSError) -> DataError:
    """The sentence about a cache directory that cannot be written."""
    return DataError(
        f"{folder} cannot be written ({describe(error)}); make room, or name another cache with dataset.cache= where "
        "the data set has it, else with XDG_CACHE_HOME="
    )
