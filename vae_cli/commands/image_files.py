"""A stream of images as one grid, as a folder of PNGs, or as an array; whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from vae_cli.errors import ConfigError, UserError
from vae_cli.reporting import grids
from vae_cli.system.atomic import atomic_write

SUFFIXES = {"grid": ".png", "png": "", "npz": ".npz"}
LARGEST_GRID = 10_000


def place(given: str | None, kind: str, stem: str, several: bool = True) -> Path:
    """Where images go: as given, or by the stem's name; `several` formats may be there to choose from.

    Raises:
        ConfigError: if the given name is not one for such a file.
    """
    suffix = SUFFIXES[kind]
    output = Path(given or f"{stem}{suffix}").expanduser()
    found = output.suffix.lower()
    if suffix and found != suffix:
        fix = next((name for name, other in SUFFIXES.items() if other == found), "png")
        if not several:
            raise ConfigError(f"output={given}: end it in {suffix}")
        raise ConfigError(f"output={given} is no name for format={kind}: end it in {suffix}, or set format={fix}")
    if kind == "png" and found in (".png", ".npz"):
        raise ConfigError(f"output={given}: format=png fills a folder; name one, or use format=grid or format=npz")
    return output


@contextmanager
def naming(output: Path) -> Iterator[None]:
    """Name the output in what the system says of it.

    Raises:
        UserError: for any error of the system.
    """
    try:
        yield
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error.strerror or error}); name another") from error


def numbered(count: int) -> list[str]:
    """Names of so many PNGs."""
    return [f"{number:06d}.png" for number in range(count)]


def check_folder(output: Path, names: Sequence[str]) -> None:
    """Refuse to mix new images with others that they do not replace.

    Raises:
        ConfigError: naming one of the others.
    """
    own = {Path(name) for name in names}
    other = next((p for p in sorted(output.rglob("*.png")) if p.relative_to(output) not in own), None)
    if other is not None:
        raise ConfigError(f"output={output} holds other images ({other.name}); name another folder, or empty it")


def write_pngs(images: Iterable[Tensor], output: Path, names: Sequence[str]) -> None:
    """One PNG per image of the chunks (N, C, H, W), under its name below a folder."""
    waiting = iter(names)
    for chunk in images:
        for pixels in grids.to_bytes(chunk):
            grids.save_png(pixels, output / next(waiting))


def write_npz(
    images: Iterable[Tensor], output: Path, shape: tuple[int, ...], more: dict[str, np.ndarray] | None = None
) -> None:
    """One float32 array `images` of a shape (N, C, H, W), a chunk at a time, and more arrays by their names."""
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with (
        atomic_write(output) as temporary,
        zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
    ):
        with archive.open("images.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array_header_2_0(member, header)
            for chunk in images:
                member.write(chunk.numpy().astype("<f4").tobytes())
        _add(archive, more or {})


def write_arrays(output: Path, arrays: dict[str, np.ndarray]) -> None:
    """Arrays by their names, as numpy.load opens them."""
    with atomic_write(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, arrays)


def _add(archive: zipfile.ZipFile, arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
            np.lib.format.write_array(member, array, allow_pickle=False)
