"""IDX, the format of MNIST's files: four bytes of magic, big-endian sizes, then the values row by row."""

from __future__ import annotations

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from vae_cli.errors import DataError, describe

GZIP_MAGIC = b"\x1f\x8b"
UNSIGNED_BYTE = 8
MOST = 1 << 30  # bytes that a gzipped file may unpack to


def read(path: Path, ndim: int, fix: str) -> np.ndarray:
    """Read the uint8 array of `ndim` dimensions in an IDX file, which may be gzipped.

    Args:
        path: the file.
        ndim: dimensions that the array must have.
        fix: what the user should do about a broken file; ends every error message.

    Raises:
        DataError: if the file cannot be read, is cut short, or holds anything else.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); {fix}") from error
    return decode(content, str(path), ndim, fix)


def decode(data: bytes, name: str, ndim: int, fix: str) -> np.ndarray:
    """Return the array that `read` reads, of a file's content and a name for messages."""
    if data.startswith(GZIP_MAGIC):
        data = _unpacked(data, name, fix)
    header = 4 + 4 * ndim
    if data[:4] != _magic(ndim):
        start = f"bytes {data[:4].hex(' ')}" if data else "nothing: it is empty"
        raise DataError(f"{name} is no IDX file of bytes in {ndim} dimension(s) (it starts with {start}); {fix}")
    if len(data) < header:
        raise DataError(f"{name} is cut short within its header; {fix}")
    shape = struct.unpack(f">{ndim}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) != expected:
        size = "x".join(map(str, shape))
        raise DataError(f"{name} has {len(data)} bytes where {size} values need {expected}; {fix}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def encode(values: np.ndarray) -> bytes:
    """Return the IDX file of a uint8 array."""
    assert values.dtype == np.uint8
    return _magic(values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def _magic(ndim: int) -> bytes:
    return bytes([0, 0, UNSIGNED_BYTE, ndim])


def _unpacked(data: bytes, name: str, fix: str) -> bytes:
    """Return a gzipped file's content, or its first gigabyte: no IDX file here has more."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(MOST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a broken gzip file ({describe(error)}); {fix}") from error
