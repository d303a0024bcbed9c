"""A safetensors file with a digest: tensors by name, and texts of JSON in its metadata.

The file has 8 bytes with the length of its header, the header, a text of JSON, and then the tensors' bytes. Its digest
is the SHA-256 of the header without the digest, as JSON with sorted keys and no spaces, followed by the tensors' bytes.
It finds damage; it is no signature. Reading and checking is the library's; the writing is not, for the system's errors
and one flush to the disk.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from safetensors import safe_open
from torch import Tensor, nn

from vae_cli.system.atomic import atomic_write

DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
    torch.uint16: "U16",
    torch.uint32: "U32",
    torch.uint64: "U64",
    torch.float8_e4m3fn: "F8_E4M3",
    torch.float8_e5m2: "F8_E5M2",
}
MOST_HEADER = 1 << 24  # bytes
ALIGNED = 64  # bytes; a mapped tensor is as fast as another where it begins at a multiple
CHUNK = 1 << 20  # bytes that are hashed at once


class InvalidFile(Exception):
    """A file that is no checkpoint of vae-train; the message says why, without the file's name."""


def write(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a file. A process that is killed meanwhile leaves the old file or the new one.

    Args:
        path: the file.
        tensors: by name.
        metadata: values of JSON by name.

    Raises:
        OSError: if it cannot be written; the old file is as it was.
        TypeError: for a tensor of a type that such a file does not hold, or too many or too long names.
    """
    for name, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            raise TypeError(f"{name} is of type {tensor.dtype}, which a safetensors file does not hold")
    values = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    texts = {name: json.dumps(value, allow_nan=False) for name, value in metadata.items()}
    header: dict[str, Any] = {"__metadata__": texts}
    names, start = sorted(values, key=lambda name: (values[name].nbytes % ALIGNED, name)), 0
    for name in names:
        value = values[name]
        place = [start, start + value.nbytes]
        header[name] = {"dtype": DTYPES[value.dtype], "shape": list(value.shape), "data_offsets": place}
        start += value.nbytes
    digest = hashlib.sha256(_canonical(header))
    for name in names:
        digest.update(_bytes(values[name]))
    texts["digest"] = digest.hexdigest()
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED)
    if len(text) > MOST_HEADER:
        raise TypeError(f"names and settings take {len(text):,} bytes, of which a file holds {MOST_HEADER:,}")
    with atomic_write(path, durable=True) as temporary, temporary.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name in names:
            file.write(_bytes(values[name]))


def digest_of(tensors: Mapping[str, Tensor]) -> str:
    """Return a short digest of the names and the values of tensors, whatever the file that holds them."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(_bytes(tensors[name].detach().cpu().contiguous()))
    return digest.hexdigest()[:16]


def mismatch(tensors: Mapping[str, Tensor], network: nn.Module) -> tuple[str, str, str] | None:
    """Return the name of the first tensor that is not of the shape and type of a network's, how it is and how the
    network's is; None if all are, and none is missing."""
    stored, built = _forms(tensors), _forms(network.state_dict())
    for name in [*built, *stored]:
        if stored.get(name) != built.get(name):
            return name[:80], stored.get(name, "missing"), built.get(name, "missing")
    return None


def _forms(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    dtypes = {name: str(value.dtype).removeprefix("torch.") for name, value in tensors.items()}
    return {name: f"of shape {tuple(value.shape)} in {dtypes[name]}" for name, value in tensors.items()}


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.reshape(-1).view(torch.uint8).numpy().data


def _canonical(header: Mapping[str, Any]) -> bytes:
    return json.dumps(header, sort_keys=True, separators=(",", ":")).encode()


def read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a file's tensors, mapped into memory, and its metadata, once all of it has proved to be whole.

    Raises:
        InvalidFile: if it is damaged or no such file.
        OSError: if it cannot be read.
    """
    with path.open("rb") as file:
        texts = _check(file)
        # The very file that was checked; its own name may be gone, or be no text of UTF-8.
        name = f"/dev/fd/{file.fileno()}"
        try:
            with safe_open(name if Path(name).exists() else path, framework="pt") as opened:
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118 - no dict
        except OSError:
            raise
        except Exception as error:
            raise InvalidFile("damaged, or not a checkpoint of vae-train") from error
    return tensors, {name: _strict(text, name) for name, text in texts.items() if name != "digest"}


def _check(file: BinaryIO) -> dict[str, str]:
    """Compare a file with its digest; return the texts of its metadata."""
    start = file.read(8)
    if not start:
        raise InvalidFile("empty, not a checkpoint of vae-train")
    length = int.from_bytes(start, "little")
    if length > MOST_HEADER and start.startswith((b"PK\x03\x04", b"\x80")):
        raise InvalidFile("a torch file or another archive, not a checkpoint of vae-train (.safetensors)")
    text = file.read(length) if len(start) == 8 and length <= MOST_HEADER else b""
    if not text.startswith(b"{") or len(text) < length:
        raise InvalidFile("damaged or cut short, or not a checkpoint of vae-train")
    header = _strict(text, "header")
    texts = header.get("__metadata__") if isinstance(header, dict) else None
    if not isinstance(texts, dict) or not all(isinstance(value, str) for value in texts.values()):
        raise InvalidFile("a safetensors file, but not a checkpoint of vae-train: it has no metadata")
    if "digest" not in texts:
        raise InvalidFile("a safetensors file, but not a checkpoint of vae-train: it has no digest")
    stored = texts.pop("digest")
    digest = hashlib.sha256(_canonical(header))
    for chunk in _chunks(file):
        digest.update(chunk)
    if digest.hexdigest() != stored:
        raise InvalidFile("damaged: its contents do not have its digest")
    return texts


def _chunks(file: BinaryIO) -> Iterator[memoryview]:
    buffer = memoryview(bytearray(CHUNK))
    while count := file.readinto(buffer):  # type: ignore[attr-defined]
        yield buffer[:count]


def _strict(text: str | bytes, name: str) -> Any:
    """Return the value of a text of JSON without numbers that are not finite."""

    def finite(number: str) -> float:
        if not math.isfinite(value := float(number)):
            raise ValueError(f"{number[:20]} is not finite")
        return value

    try:
        return json.loads(text, parse_float=finite, parse_constant=finite)
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"damaged: its {name[:40]} is no JSON that vae-train writes") from error
