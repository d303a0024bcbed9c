"""The user's own images: any directory tree of them."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import Literal

import numpy as np
from tqdm import tqdm

from vae_cli.constraints import FilePath, FolderPath, ImageSize, Index, Positive
from vae_cli.data.base import Binarize, Dataset, Source
from vae_cli.data.decoded import Decoded, Originals, Pictures, decode, fingerprint
from vae_cli.data.images import Images
from vae_cli.data.pictures import WHITE, OutOfRangeError, Prepared, needed_package, square, suffixes
from vae_cli.errors import ConfigError, DataError, counted, describe, printable, shortened
from vae_cli.system.cache import cache_dir
from vae_cli.system.paths import expand

SPLITS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
NOT_PICTURES = {"__MACOSX", "@eaDir"}  # folders that systems and storage boxes leave behind
SHOWN = 5
FIX = "repair or remove it"
WANTED = "the tool looks for png, jpg, webp, bmp, gif, tiff and pnm files, at any depth"


@dataclass(frozen=True)
class Tree:
    """Image files below a directory by their relative paths, with size and times; the directories directly below it;
    and how many files of other kinds."""

    files: dict[str, tuple[int, ...]]
    folders: set[str]
    others: Counter[str]


@dataclass(frozen=True)
class Listed:
    """Every image of a directory in the order of the files' paths, the names of the classes that the labels number, and
    notes."""

    images: Images
    names: list[str]
    classes: list[str]
    notes: list[str]


@dataclass(frozen=True)
class Entry:
    """An image by its path below the directory, the split it belongs to, and its class folder if it has one."""

    path: str
    split: str
    folder: str | None


class Folder(Dataset):
    """Images in a directory and its subdirectories, at any depth: png, jpg, webp, bmp, pnm, and the first frame of gif
    and tiff; avif, heic and jxl where Pillow reads them.

    Each is turned upright by its EXIF, put over white where transparent, cropped to its largest centered square
    and resized. The first subdirectory on an image's path names its class, if every image lies in one. With
    subdirectories `train` and `val` (`valid`, `validation`) or `test`, those are the splits and the classes lie
    within them. Hidden files and files of other kinds are left alone; symbolic links are followed.

    Decoded images are kept in a cache and mapped from there, so that a set may be larger than the memory; the
    cache is made anew when a file is added, removed or changed.

    Args:
        path: the directory.
        image_size: pixels a side.
        channels: 3, or 1 for gray.
        range: the value of white in images of more than 8 bits; None is 65535, and 1 in images of floats.
        on_error: `error` refuses a set with an image that cannot be read, `skip` leaves out and counts them.
        binarize: see `Dataset`.
        validation: see `Dataset`.
        cache: where decoded images are kept; None is the user's cache directory.

    Raises:
        ConfigError: if there is no `path`.
    """

    name = "folder"
    has_keys = True  # that the user can set, so that advice may name them

    def __init__(
        self,
        path: FilePath | None = None,
        image_size: ImageSize = 64,
        channels: Literal[1, 3] = 3,
        range: Positive | None = None,
        on_error: Literal["error", "skip"] = "error",
        binarize: Binarize = "none",
        validation: Index | None = None,
        cache: FolderPath | None = None,
    ) -> None:
        super().__init__(binarize, validation)
        if not path:
            raise ConfigError("dataset.path is not set: name a directory of images")
        self.path = expand(str(path))
        self.shape = (channels, image_size, image_size)
        self.white = range
        self.skip = on_error == "skip"
        self.cache = expand(cache) if cache else cache_dir() / "decoded"

    def load(self) -> Source:
        """Read the images as bytes (C, image_size, image_size), with labels if there are class folders.

        Raises:
            DataError: if there is no such directory or no image in it, an image cannot be read and is not to be
                skipped, or the cache cannot be written.
        """
        tree = self._tree()
        roles = _roles(tree)
        entries = _entries(list(tree.files), roles)
        for folder, split in roles.items():
            if not any(entry.split == split for entry in entries):
                raise DataError(f"dataset.path={printable(self.path)}: no image in its {folder} folder; {WANTED}")
        decoded = self._decode(tree, entries)
        classes = _classes(entries)
        notes = [*self._notes(tree, decoded, entries), *_notes_on_classes(classes, entries)]
        parts = _parts(decoded, entries, classes)
        for folder, split in roles.items():
            if split not in parts:
                raise DataError(f"dataset.path={printable(self.path)}: no image in its {folder} folder can be read")
        return Source(
            parts["train"], parts.get("validation"), parts.get("test"), "levels256", tuple(notes), tuple(classes)
        )

    def in_order(self) -> Listed:
        """Return every image as bytes, whatever folder it lies in, with its path below the directory.

        Raises:
            DataError: as `load`.
        """
        tree = self._tree()
        entries = _entries(list(tree.files), {})
        decoded = self._decode(tree, entries)
        if not len(decoded.kept):
            raise DataError(f"{printable(self.path)}: none of its images can be read")
        classes = _classes(entries)
        names = [entries[number].path for number in decoded.kept]
        return Listed(_parts(decoded, entries, classes)["train"], names, classes, self._notes(tree, decoded, entries))

    def _notes(self, tree: Tree, decoded: Decoded, entries: Sequence[Entry]) -> list[str]:
        sizes = _notes_on_sizes(decoded.originals, self.shape[1])
        return [*_notes_on_files(tree, decoded, entries), *sizes, *self._notes_on_values(decoded.originals)]

    def _notes_on_values(self, originals: Originals) -> list[str]:
        notes, top = [], originals.top
        if originals.deep and self.white is None:
            note = f"{counted(originals.deep, 'image')} with more than 8 bits a value; the largest value is {top:,g}"
            if 1 < top <= WHITE / 2:
                fix = f"dataset.range={2 ** int(top).bit_length() - 1} makes that white"
                note += f" of {WHITE}: they come out dark; {fix if self.has_keys else 'rescale them'}"
            notes.append(note)
        if originals.pages:
            notes.append(f"{counted(originals.pages, 'file')} with several pages, of which the first is taken")
        return notes

    def _tree(self) -> Tree:
        tree = _list(self.path)
        if not tree.files:
            content = f"it holds {_kinds(tree.others)}" if tree.others else "it is empty"
            packages = sorted({package for suffix in tree.others if (package := needed_package(suffix))})
            content += f": pip install {' '.join(packages)} to read some of them" if packages else ""
            raise DataError(f"dataset.path={printable(self.path)} has no images ({WANTED}; {content})")
        return tree

    def _decode(self, tree: Tree, entries: Sequence[Entry]) -> Decoded:
        names = [entry.path for entry in entries]
        listing = [f"{name}/{tree.files[name]}" for name in names]
        state = fingerprint(*self.shape, self.white, *listing)
        pictures = Pictures(names, lambda name: (self.path / name).open("rb"), self._prepare, self.shape, state)
        fix = f"{FIX}, or leave out all such files with dataset.on_error=skip" if self.has_keys else FIX
        folder = self.cache / f"{self.name}-{fingerprint(os.path.realpath(self.path), *self.shape)}"
        return decode(pictures, folder, f"dataset.path={printable(self.path)}", fix, self.skip)

    def _prepare(self, file: BufferedIOBase) -> Prepared:
        """Return a picture as bytes, as `square` does; its error names the key that may help."""
        channels, size, _ = self.shape
        try:
            return square(file, size, channels, white=self.white)
        except OutOfRangeError as error:
            hint = ", or set dataset.range to the value of white" if self.has_keys else ""
            raise ValueError(f"{error}{hint}") from error


def _list(root: Path) -> Tree:
    """List a directory and all below it.

    Raises:
        DataError: if it is no directory, or cannot be read.
    """
    try:
        if not root.is_dir():
            problem = "is a file" if root.exists() else "does not exist"
            raise DataError(f"dataset.path={printable(root)} {problem}; name a directory of images")
        os.scandir(root).close()
    except (OSError, ValueError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"dataset.path={printable(root)} cannot be read ({describe(error)})") from error
    files: dict[str, tuple[int, ...]] = {}
    folders, others = set[str](), Counter[str]()
    walk = tqdm(_walk(root), desc="looking for images", unit=" files", delay=2, leave=False, mininterval=1)
    for path, status in walk:
        if status is not None and stat.S_ISDIR(status.st_mode):
            folders.add(path)
        elif status is None or Path(path).suffix.lower() in suffixes():
            files[path] = () if status is None else (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        else:
            others[Path(path).suffix.lower() or "no suffix"] += 1
    return Tree({path: files[path] for path in sorted(files, key=os.fsencode)}, folders, others)


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result | None]]:
    """Yield every file that is not hidden, by its path below the root, and every directory directly below it.

    What cannot be looked at comes without a status. A directory is entered through one link at most, however many lead
    to it.
    """
    waiting: list[tuple[str, frozenset[tuple[int, int]]]] = [("", frozenset())]
    linked: set[tuple[int, int]] = set()
    while waiting:
        folder, above = waiting.pop()
        try:
            directory = (root / folder).stat()
            here = (directory.st_dev, directory.st_ino)
            if here in above:  # a link to a directory that it lies in
                continue
            entries = sorted(os.scandir(root / folder), key=lambda entry: os.fsencode(entry.name))
        except OSError:
            yield folder, None
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name in NOT_PICTURES:
                continue
            path = f"{folder}/{entry.name}" if folder else entry.name
            status = _status(entry)
            if status is not None and stat.S_ISDIR(status.st_mode):
                target = (status.st_dev, status.st_ino)
                if not folder:
                    yield path, status
                if not (entry.is_symlink() and target in linked):
                    waiting.append((path, above | {here}))
                if entry.is_symlink():
                    linked.add(target)
            elif status is None and Path(path).suffix.lower() in suffixes():
                yield path, None
            elif status is not None and stat.S_ISREG(status.st_mode):
                yield path, status


def _status(entry: os.DirEntry[str]) -> os.stat_result | None:
    try:
        return entry.stat()
    except OSError:  # a link that leads nowhere, or in a circle
        return None


def _entries(paths: Sequence[str], roles: dict[str, str]) -> list[Entry]:
    """Return the images that belong to a split, each with its split and its class."""
    if not roles:
        return [Entry(path, "train", _top(path)) for path in paths]
    inside = [(path, *path.split("/", 1)) for path in paths if "/" in path]
    return [Entry(path, roles[top], _top(rest)) for path, top, rest in inside if top in roles]


def _top(path: str) -> str | None:
    top, slash, _ = path.partition("/")
    return top if slash else None


def _roles(tree: Tree) -> dict[str, str]:
    """Return the split of each split folder, if there are any.

    `train` is a split beside `val` or `test`, or as the only folder with images; among other folders it is a class.
    """
    roles = {folder: SPLITS[folder.lower()] for folder in sorted(tree.folders) if folder.lower() in SPLITS}
    splits = list(roles.values())
    for split in splits:
        if splits.count(split) > 1:
            same = [folder for folder in roles if roles[folder] == split]
            raise DataError(f"dataset.path has the folders {' and '.join(same)}, which mean the same; keep one")
    with_images = {_top(path) for path in tree.files} - {None}
    return roles if "train" in splits and (len(splits) > 1 or with_images <= roles.keys()) else {}


def _classes(entries: Sequence[Entry]) -> list[str]:
    """Return the names of the classes in order; none unless every image lies in a class folder."""
    names = {entry.folder for entry in entries}
    return [] if None in names else sorted((name for name in names if name), key=os.fsencode)


def _parts(decoded: Decoded, entries: Sequence[Entry], classes: Sequence[str]) -> dict[str, Images]:
    """Return the images of each split that has any."""
    numbers = {name: number for number, name in enumerate(classes)}
    kept = [entries[number] for number in decoded.kept]
    parts = {}
    for split in {entry.split for entry in kept}:
        rows = np.array([row for row, entry in enumerate(kept) if entry.split == split], np.int64)
        labels = np.array([numbers[kept[row].folder or ""] for row in rows], np.int64) if classes else None
        parts[split] = Images(decoded.values, labels, rows)
    return parts


def _notes_on_files(tree: Tree, decoded: Decoded, entries: Sequence[Entry]) -> list[str]:
    """Return a line for each kind of file that was left out."""
    notes = []
    if decoded.skipped:
        shown = [f"{printable(name)} ({reason})" for name, reason in decoded.skipped[:SHOWN]]
        more = len(decoded.skipped) - len(shown)
        total = len(decoded.skipped) + len(decoded.kept)
        named = ", ".join(shown) + (f" and {more:,} more" if more else "")
        notes.append(f"skipped {len(decoded.skipped):,} of {total:,} images that cannot be read: {named}")
    if outside := len(tree.files) - len(entries):
        notes.append(f"left out {counted(outside, 'image')} outside of the train, val and test folders")
    unread = {suffix: package for suffix in tree.others if (package := needed_package(suffix))}
    for suffix, package in unread.items():
        notes.append(f"left out {counted(tree.others[suffix], f'{suffix} image')}: pip install {package} to read them")
    others = Counter({suffix: count for suffix, count in tree.others.items() if suffix not in unread})
    if others:
        notes.append(f"left out {counted(others.total(), 'file')} of kinds that are not read: {_kinds(others)}")
    return notes


def _notes_on_sizes(originals: Originals, size: int) -> list[str]:
    """Return a line about sizes that were changed and colors that were lost."""
    changes = []
    smallest, largest = ("x".join(map(str, sides)) for sides in (originals.smallest, originals.largest))
    if {*originals.smallest, *originals.largest} != {size}:
        is_square = originals.smallest == originals.largest and len(set(originals.largest)) == 1
        sizes = smallest if smallest == largest else f"{smallest} to {largest}"
        changes.append(f"{'resized' if is_square else 'cropped and resized'} from {sizes} to {size}x{size}")
    if originals.lost_color:
        changes.append(f"{originals.lost_color:,} made gray from color")
    return [f"images {' and '.join(changes)}"] if changes else []


def _notes_on_classes(classes: Sequence[str], entries: Sequence[Entry]) -> list[str]:
    if classes:
        return [f"{counted(len(classes), 'class')} by folder: {shortened(classes, SHOWN)}"]
    outside = sum(entry.folder is None for entry in entries)
    if outside < len(entries):
        return [f"no labels: {counted(outside, 'image')} outside of class folders"]
    return []


def _kinds(others: Counter[str]) -> str:
    kinds = [f"{count:,} {printable(suffix)}" for suffix, count in others.most_common(SHOWN)]
    return ", ".join([*kinds, "…"] if len(others) > SHOWN else kinds)
