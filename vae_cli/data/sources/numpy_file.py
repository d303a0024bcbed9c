"""Arrays in an `.npz` or `.npy` file, by the roles that their names say; none may hold objects."""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from vae_cli.errors import DataError, counted, describe, printable, shortened
from vae_cli.system import memory

# Every role of an array, and the names that it may have in an .npz file.
ROLES = {
    "train": ("train", "images"),
    "validation": ("valid", "validation", "val"),
    "test": ("test",),
    "train_labels": ("train_labels", "labels", "label"),
    "validation_labels": ("valid_labels", "validation_labels", "val_labels"),
    "test_labels": ("test_labels",),
    "factor_names": ("factor_names",),
}
NPY_MAGIC = b"\x93NUMPY"
NPZ_MAGIC = (b"PK\x03\x04", b"PK\x05\x06")
TORCH_SUFFIXES = (".pt", ".pth")
BESIDE = ("file", "z", "factors")  # arrays that vae-reconstruct and vae-sample write beside images
ALIKE = 0.75  # the similarity of two names from which one may be the other with a slip
WORDS = {  # in names of arrays, by the word that `ROLES` has for them
    **dict.fromkeys(("label", "labels", "y", "target", "targets"), "labels"),
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "valid"),
    **dict.fromkeys(("test", "testing", "tests"), "test"),
    **dict.fromkeys(("x", "image", "images", "data"), ""),
}
AS_NUMBERS = '.astype("uint8") or as floats'
SAVE = "save one with numpy.savez(path, train=images)"


@dataclass(frozen=True)
class NamedArray:
    """An array, and its name in error messages."""

    name: str
    values: np.ndarray


def read(path: Path) -> tuple[dict[str, NamedArray], tuple[str, ...]]:
    """Read the arrays of a file by role, and notes; a lone array, whatever its name, is `train`. An `.npy` file is
    mapped.

    Raises:
        DataError: if the file is missing, broken or of another kind, or has no training set.
    """
    magic = _magic(path)
    if magic.startswith(NPY_MAGIC):
        try:
            values = np.load(path, mmap_mode="r")
        except Exception as error:  # numpy raises many kinds for a broken header
            raise _unreadable(str(path), error) from error
        return {"train": NamedArray(f"{path}: the array", values)}, ()
    if magic.startswith(NPZ_MAGIC):
        return _load_npz(path)
    if path.suffix.lower() in TORCH_SUFFIXES:
        raise _of_torch(path)
    raise DataError(f"{path} is no .npz or .npy file; {SAVE}; or name a folder of images")


def _magic(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a directory; dataset.path must name one .npz or .npy file")
    try:
        with path.open("rb") as file:
            return file.read(len(NPY_MAGIC))
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; set dataset.path to an .npz or .npy file, or to a folder of images"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({describe(error)}); set dataset.path to another file") from error


def _of_torch(path: Path) -> DataError:
    saved = str(path.with_suffix(".npy"))
    return DataError(
        f"{path} is a torch file; open it in Python and write its tensor with numpy.save({saved!r}, tensor)"
    )


def _load_npz(path: Path) -> tuple[dict[str, NamedArray], tuple[str, ...]]:
    try:
        archive = np.load(path)
    except Exception as error:  # numpy and zipfile raise many kinds
        raise _unreadable(str(path), error) from error
    with archive:
        if any(name.endswith("data.pkl") for name in archive.files):
            raise _of_torch(path)
        names, notes = roles(path, archive.files)
        _check_size(path, archive)
        texts = names.pop("factor_names", None)
        arrays = {role: _member(f"{path}: array {name}", archive, name) for role, name in names.items()}
        if texts is not None and any(role.endswith("_labels") and arrays[role].values.ndim == 2 for role in names):
            arrays["factor_names"] = _member(f"{path}: array {texts}", archive, texts, ".astype(str)")
        return arrays, notes


def _check_size(path: Path, archive: NpzFile) -> None:
    """Raise DataError if the arrays do not fit into memory, before any is unpacked.

    zipfile unpacks no more than the size that the archive states.
    """
    assert archive.zip is not None
    size, free = sum(member.file_size for member in archive.zip.infolist()), memory.available()
    if size > free:
        raise DataError(
            f"{path} unpacks to {memory.format_size(size)}, of which {memory.format_size(free)} fit into memory; "
            "save it as .npy, which is mapped"
        )


def _member(described: str, archive: NpzFile, name: str, fix: str = AS_NUMBERS) -> NamedArray:
    try:
        values = archive[name]
    except Exception as error:  # numpy and zipfile raise many kinds
        raise _unreadable(described, error, fix) from error
    if not isinstance(values, np.ndarray):
        raise DataError(f"{described} is not in numpy's format; {SAVE}")
    return NamedArray(described, values)


def _unreadable(name: str, error: Exception, fix: str = AS_NUMBERS) -> DataError:
    if "object" in str(error).lower():
        return DataError(f"{name} holds Python objects, which are not opened; save it {fix}")
    if isinstance(error, MemoryError):
        return DataError(f"{name} does not fit into memory ({describe(error)}); save it as .npy, which is mapped")
    return DataError(f"{name} is broken or cut short ({describe(error)}); copy or save it again")


def roles(path: Path | str, names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the name of the array in each role that has one, and a note on arrays that are left out.

    Raises:
        DataError: if there is no training set, two arrays have one role, or a name looks like one that is misspelled.
    """
    other_roles = {name for role, synonyms in ROLES.items() if role != "train" for name in synonyms}
    if len(names) == 1 and names[0] not in other_roles:
        return {"train": names[0]}, ()
    chosen = {}
    for role, synonyms in ROLES.items():
        present = [name for name in names if name in synonyms]
        if len(present) > 1:
            raise DataError(f"{path} has both {' and '.join(present)}, which mean the same; keep one")
        if present:
            chosen[role] = present[0]
    others = [name for name in names if name not in chosen.values() and name not in BESIDE]
    taken = {name for role in chosen for name in ROLES[role]}
    slips = [f"{printable(name)} to {meant}" for name in others if (meant := _meant(name)) and meant not in taken]
    if slips:
        renamed = ", ".join(slips)
        raise DataError(f"{path} has arrays under names that are not read: rename {renamed}, or leave them out")
    for role in ("train", *chosen):
        if (split := role.removesuffix("_labels")) not in chosen:
            listed = ", ".join(map(printable, names)) or "no arrays at all"
            raise DataError(f"{path} has no array {ROLES[split][0]} (it has {listed}); add or rename it")
    known = ", ".join(synonyms[0] for role, synonyms in ROLES.items() if role != "factor_names")
    left_out = f"left out the {counted(len(others), 'array')} {shortened(others)} of {path}; names that count: {known}"
    return chosen, (left_out,) if others else ()


def _meant(name: str) -> str | None:
    """Return the name of a role that another name looks like: with its words in another order, or a slip."""
    words = {WORDS.get(word, word) for word in re.split(r"[\W_]+", name.lower())} - {""}
    if words in (set(), {"labels"}):  # of the only images that there are
        return "labels" if words else "train"
    for first, *_ in ROLES.values():
        if words == set(first.split("_")):
            return first
    every = [each for synonyms in ROLES.values() for each in synonyms]
    return next(iter(get_close_matches(name.lower(), every, n=1, cutoff=ALIKE)), None)
