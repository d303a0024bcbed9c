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


def read(path: Path, ndim: int, mend: str) -> np.ndarray:
    """The uint8 array of `ndim` dimensions in an IDX file, which may be gzipped.

    Args:
        path: the file.
        ndim: dimensions that the array must have.
        mend: what the user should do about a broken file; ends every error message.

    Raises:
        DataError: if the file cannot be read, is cut short, or holds anything else.
    """
    return decode(_content(path, mend), str(path), ndim, mend)


def decode(data: bytes, name: str, ndim: int, mend: str) -> np.ndarray:
    """As `read`, of a file's content under a name for messages."""
    if data.startswith(GZIP_MAGIC):
        data = _unpacked(data, name, mend)
    header = 4 + 4 * ndim
    if data[:4] != _magic(ndim):
        raise DataError(f"{name} is no IDX file of bytes in {ndim} dimension(s) (it starts with {_hex(data)}); {mend}")
    if len(data) < header:
        raise DataError(f"{name} is cut short within its header; {mend}")
    shape = struct.unpack(f">{ndim}I", data[4:header])
    expected = header + math.prod(shape)
    if len(data) != expected:
        size = "x".join(map(str, shape))
        raise DataError(f"{name} has {len(data)} bytes where {size} values need {expected}; {mend}")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape).copy()


def encode(values: np.ndarray) -> bytes:
    """The IDX file of a uint8 array."""
    assert values.dtype == np.uint8
    return _magic(values.ndim) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def _magic(ndim: int) -> bytes:
    return bytes([0, 0, UNSIGNED_BYTE, ndim])


def _hex(data: bytes) -> str:
    return f"bytes {data[:4].hex(' ')}" if data else "nothing: it is empty"


def _content(path: Path, mend: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); {mend}") from error


def _unpacked(data: bytes, name: str, mend: str) -> bytes:
    """A gzipped file's content, or its first gigabyte: no IDX file here has more."""
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(MOST)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{name} is a broken gzip file ({describe(error)}); {mend}") from error
