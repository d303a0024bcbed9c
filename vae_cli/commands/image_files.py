"""Images on disk: one grid, a folder of PNGs, or an array; each file is written whole or not at all."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from torch import Tensor

from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError, UserError, describe
from vae_cli.reporting import grids
from vae_cli.system.atomic import atomic_write, write_png
from vae_cli.system.paths import expand

SUFFIXES = {"grid": ".png", "png": "", "npz": ".npz", "csv": ".csv", "parquet": ".parquet"}
OF_IMAGES, OF_ROWS = ("grid", "png"), ("csv", "parquet")
LARGEST_GRID = 10_000

Arrays = Mapping[str, np.ndarray]


def output_path(name: str | None, kind: str, stem: str, has_formats: bool = True) -> Path:
    """Return the path to write to.

    Args:
        name: the value of `output=`.
        kind: the format, a key of `SUFFIXES`.
        stem: of the default name.
        has_formats: the command has a key `format`.

    Raises:
        ConfigError: if the name is not one for such a file.
    """
    suffix = SUFFIXES[kind]
    output = expand(name or f"{stem}{suffix}")
    name_suffix = output.suffix.lower()
    if suffix and name_suffix != suffix:
        if not has_formats:
            raise ConfigError(f"output={name}: end it in .npz, .csv or .parquet")
        fitting = [f", or set format={key}" for key, other in SUFFIXES.items() if other == name_suffix]
        raise ConfigError(f"output={name} is no name for format={kind}: end it in {suffix}{''.join(fitting)}")
    if kind == "png" and name_suffix in (".png", ".npz"):
        raise ConfigError(f"output={name}: format=png fills a folder; name one, or use format=grid or format=npz")
    return output


def format_of(kind: str, name: str | None, facts: DataFacts) -> str:
    """Return a key of `SUFFIXES` for the value of `format=`: of `auto` what the end of `output=` says, else a grid of
    images, a CSV file of a table's rows and arrays of other examples.

    Raises:
        ConfigError: if the examples have no such form.
    """
    if kind == "auto":
        by_suffix = {suffix: key for key, suffix in SUFFIXES.items() if suffix}
        usual = "grid" if facts.is_image else "csv" if len(facts.shape) == 1 else "npz"
        kind = by_suffix.get(Path(name or "").suffix.lower(), usual)
    if kind in OF_IMAGES and not facts.is_image:
        raise ConfigError(f"format={kind} is of images, and these are no images; use format=csv, parquet or npz")
    if kind in OF_ROWS and facts.is_image:
        raise ConfigError(f"format={kind} is of rows, and these are images; use format=grid, png or npz")
    return kind


def keep(output: Path, inputs: Iterable[str | None], key: str = "output") -> None:
    """Refuse to write over what is read.

    Args:
        output: the path to write to.
        inputs: paths, or other words, of what is read.
        key: that names the output.

    Raises:
        ConfigError: if one of the inputs is the output.
    """
    if any(
        each is not None and expand(each).exists() and expand(each).resolve() == output.resolve() for each in inputs
    ):
        raise ConfigError(f"{key}={output} is where the data are; name another file")


@contextmanager
def errors_name(output: Path, key: str = "output") -> Iterator[None]:
    """Turn an error of the system into a `UserError` that names the output."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{key}={output} cannot be written ({describe(error)}); name another") from error


def numbered_names(count: int) -> list[str]:
    """Return the names of so many PNGs."""
    return [f"{number:06d}.png" for number in range(count)]


def check_folder(output: Path, names: Sequence[str]) -> None:
    """Refuse to mix new PNGs with others that they do not replace.

    Raises:
        ConfigError: naming one of the others.
    """
    replaced = {Path(name) for name in names}
    other = next((path for path in sorted(output.rglob("*.png")) if path.relative_to(output) not in replaced), None)
    if other is not None:
        raise ConfigError(f"output={output} holds other images ({other.name}); name another folder, or empty it")


def write_pngs(chunks: Iterable[Tensor], output: Path, names: Sequence[str]) -> None:
    """Write one PNG for each image of the chunks (N, C, H, W), under its name in a folder."""
    remaining = iter(names)
    for chunk in chunks:
        for pixels in grids.to_bytes(chunk):
            write_png(output / next(remaining), grids.from_pixels(pixels))


def write_npz(
    output: Path, arrays: Arrays, images: Iterable[Tensor] = (), shape: tuple[int, ...] | None = None
) -> None:
    """Write arrays by their names, as numpy.load opens them.

    Args:
        output: the file.
        arrays: by their names.
        images: chunks (N, C, H, W) of a further array `images` of float32, which never is in memory as a whole.
        shape: of that array.
    """
    with atomic_write(output) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        if shape is not None:
            archive.compresslevel = 1  # float images hardly become smaller
            with archive.open("images.npy", "w", force_zip64=True) as member:
                header = {"descr": "<f4", "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(member, header)
                for chunk in images:
                    member.write(chunk.numpy().astype("<f4").tobytes())
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array)
