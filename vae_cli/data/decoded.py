"""A cache of decoded images: made once, in parallel, and mapped by every later run."""

from __future__ import annotations

import hashlib
import io
import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from vae_cli.data.mapped import cannot_write
from vae_cli.data.pictures import Prepared, ignore_warnings
from vae_cli.errors import DataError, describe, printable
from vae_cli.system.atomic import atomic_write, write_text
from vae_cli.system.locks import file_lock
from vae_cli.system.threads import cores

VERSION = 2  # of the way that `pictures` prepares a file; another version's cache is made anew
TASK = 8  # pictures that a thread takes at a time
QUEUED = 1 << 28  # bytes of decoded pictures that wait to be written

Shape = tuple[int, int, int]
FROM_SYSTEM = "system: "  # begins a reason that may be gone at the next start, without a change of the file
Outcome = Prepared | str  # a picture, or the reason why there is none


@dataclass(frozen=True)
class Pictures:
    """Picture files to decode.

    Args:
        names: of the pictures, for messages, in the order of the cache.
        open: opens the file of a name.
        prepare: makes a file a picture of `shape`; may raise any exception for one that cannot be read.
        shape: (C, H, W).
        fingerprint: changes whenever a file or the way it is prepared does.
    """

    names: Sequence[str]
    open: Callable[[str], io.BufferedIOBase]
    prepare: Callable[[io.BufferedIOBase], Prepared]
    shape: Shape
    fingerprint: str


@dataclass
class Originals:
    """The pictures' sizes and kinds before they were prepared.

    Args:
        smallest: the sides of the smallest picture, by its pixels.
        largest: those of the largest.
        lost_color: pictures in color that were made gray.
        deep: pictures with more than 8 bits a value.
        top: the largest of all their values.
        pages: files with further pages, which are left out.
    """

    smallest: tuple[int, int] = (0, 0)
    largest: tuple[int, int] = (0, 0)
    lost_color: int = 0
    deep: int = 0
    top: float = 0.0
    pages: int = 0

    def add(self, picture: Prepared) -> None:
        """Count a picture."""
        area = math.prod(picture.size)
        if not math.prod(self.smallest) or area < math.prod(self.smallest):
            self.smallest = picture.size
        if area > math.prod(self.largest):
            self.largest = picture.size
        self.lost_color += picture.lost_color
        self.pages += picture.pages
        if picture.largest is not None:
            self.deep, self.top = self.deep + 1, max(self.top, picture.largest)


@dataclass(frozen=True)
class Decoded:
    """Decoded pictures: their mapped `values` (N, C, H, W), the places of their names, the others with reasons, and
    what they were before."""

    values: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]
    originals: Originals

    @property
    def may_change(self) -> bool:
        """Return whether a skipped file could not be opened then and may open now."""
        return any(reason.startswith(FROM_SYSTEM) for _, reason in self.skipped)


def fingerprint(*parts: object) -> str:
    """Return a short digest of anything that can be written as text."""
    text = "\0".join(map(str, (VERSION, *parts)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def decode(pictures: Pictures, folder: Path, title: str, fix: str, skip: bool = False) -> Decoded:
    """Map the decoded pictures in a cache, which is made first unless it is there and up to date.

    Args:
        pictures: what to decode.
        folder: of the cache of these pictures, whatever their fingerprint.
        title: of the pictures, as printed.
        fix: what to do about a picture that cannot be read; ends the error message.
        skip: leave out what cannot be read.

    Raises:
        DataError: if a picture cannot be read and is not to be skipped, none can, or `folder` cannot be written.
    """
    cached = _map(pictures, folder)
    if cached is None or cached.may_change:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with file_lock(folder / ".lock", wait=True, title=title):
                cached = _map(pictures, folder)  # made by another run, while this one waited
                if cached is None or cached.may_change:
                    _make(pictures, folder, title, fix, skip)
                    cached = _map(pictures, folder)
        except OSError as error:
            raise cannot_write(folder, error) from error
        assert cached is not None, "the cache was just made"
    if cached.skipped and not skip:
        raise _unreadable(title, fix, *cached.skipped[0])
    return cached


def _unreadable(title: str, fix: str, name: str, reason: str) -> DataError:
    return DataError(f"{title}: {printable(name)} cannot be read as an image ({reason}); {fix}")


def _map(pictures: Pictures, folder: Path) -> Decoded | None:
    """Return the cached pictures; None where they are missing, or not whole."""
    values, index = _files(folder, pictures.fingerprint)
    try:
        described = json.loads(index.read_text(encoding="utf-8"))
        kept = np.ones(len(pictures.names), bool)
        kept[[number for number, _ in described["skipped"]]] = False
        shape = (int(kept.sum()), *pictures.shape)
        if values.stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        mapped = np.memmap(values, np.uint8, "r", shape=shape)
        plain = described["originals"]
        originals = Originals(**plain | {key: tuple(plain[key]) for key in ("smallest", "largest")})
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    skipped = [(pictures.names[number], reason) for number, reason in described["skipped"]]
    return Decoded(mapped, np.flatnonzero(kept), skipped, originals)


def _files(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / f"{name}.bytes", folder / f"{name}.json"


def _make(pictures: Pictures, folder: Path, title: str, fix: str, skip: bool) -> None:
    """Decode into a file; the index, written last, makes it count. Files of other fingerprints are removed."""
    values, index = _files(folder, pictures.fingerprint)
    count = len(pictures.names)
    skipped: list[tuple[int, str]] = []
    originals = Originals()
    print(f"{title}: decoding {count:,} images into {folder}, once", file=sys.stderr, flush=True)
    with atomic_write(values, durable=True) as temporary:
        with temporary.open("wb") as file, ignore_warnings():
            outcomes = tqdm(_outcomes(pictures), total=count, desc="decoding", unit=" images", disable=None)
            for number, outcome in enumerate(outcomes):
                if not isinstance(outcome, str):
                    file.write(outcome.values.data)
                    originals.add(outcome)
                elif skip:
                    skipped.append((number, outcome))
                else:
                    raise _unreadable(title, fix, pictures.names[number], outcome)
        if len(skipped) == count:
            reason = f" ({skipped[0][1]})" if skipped else ""
            raise DataError(f"{title}: none of its {count:,} images can be read{reason}")
        for path in folder.iterdir():
            if path != temporary and path.suffix in (".bytes", ".json", ".tmp"):
                path.unlink(missing_ok=True)
    write_text(index, json.dumps({"skipped": skipped, "originals": asdict(originals)}))


def _outcomes(pictures: Pictures) -> Iterator[Outcome]:
    """Yield every picture's bytes, or the reason why there are none, in order; threads work on the next few."""

    def work(names: Sequence[str]) -> list[Outcome]:
        return [_outcome(pictures, name) for name in names]

    workers = cores()
    ahead = min(4 * workers, QUEUED // (TASK * math.prod(pictures.shape)))
    waiting: deque[Future[list[Outcome]]] = deque()
    pool = ThreadPoolExecutor(workers, thread_name_prefix="decoding")
    try:
        for start in range(0, len(pictures.names), TASK):
            waiting.append(pool.submit(work, pictures.names[start : start + TASK]))
            if len(waiting) > ahead:
                yield from waiting.popleft().result()
        while waiting:
            yield from waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _outcome(pictures: Pictures, name: str) -> Outcome:
    try:
        with pictures.open(name) as file:
            picture = pictures.prepare(file)
    except Image.UnidentifiedImageError:
        return "not an image of a kind that is read"
    except Exception as error:  # a picture may break in any way, and there is one thing to say
        from_system = isinstance(error, OSError) and error.errno is not None
        return f"{FROM_SYSTEM}{describe(error)}" if from_system else describe(error)
    assert picture.values.shape == pictures.shape and picture.values.dtype == np.uint8
    return picture
