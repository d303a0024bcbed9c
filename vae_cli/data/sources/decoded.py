"""Decoded pictures on the disk: made once, in parallel, and mapped by every later run."""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from vae_cli.data.download.lock import alone
from vae_cli.data.mapped import unwritable
from vae_cli.data.sources.pictures import quiet
from vae_cli.errors import DataError, describe, printable

VERSION = 1  # of what `pictures` makes of a file; a cache made by another is made anew
TASK = 8  # pictures that a thread takes at a time
QUEUED = 1 << 28  # bytes of decoded pictures that wait for their turn

Shape = tuple[int, int, int]
FROM_SYSTEM = "system: "  # what may be otherwise at the next start, without a change of the file
Outcome = np.ndarray | str  # a picture's bytes, or why there are none


@dataclass(frozen=True)
class Pictures:
    """Picture files, wherever they lie.

    Args:
        names: what each is called in messages, in the order they are kept.
        open: the file of a name.
        prepare: its bytes, of `shape`; raises whatever it likes for one that cannot be read.
        shape: (C, H, W).
        fingerprint: changes whenever a file or the way it is prepared does.
    """

    names: Sequence[str]
    open: Callable[[str], io.BufferedIOBase]
    prepare: Callable[[io.BufferedIOBase], np.ndarray]
    shape: Shape
    fingerprint: str


@dataclass(frozen=True)
class Decoded:
    """Decoded pictures: `values` (N, C, H, W), mapped; which of the names they are; the others, and why not."""

    values: np.ndarray
    kept: np.ndarray
    skipped: list[tuple[str, str]]

    @property
    def may_change(self) -> bool:
        """Whether a file was skipped that the system would not open then, and may open now."""
        return any(why.startswith(FROM_SYSTEM) for _, why in self.skipped)


def fingerprint(*parts: object) -> str:
    """A short name for a state of affairs."""
    text = "\0".join(map(str, (VERSION, *parts)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


def decoded(pictures: Pictures, place: Path, title: str, mend: str, skip: bool = False) -> Decoded:
    """The pictures out of `place`, where they are put first unless they are there as they are now.

    Args:
        pictures: what to decode.
        place: a directory for these pictures and what they once were.
        title: what is decoded, as printed.
        mend: what to do about a picture that cannot be read; ends the error message.
        skip: leave out what cannot be read.

    Raises:
        DataError: if a picture cannot be read and is not to be skipped, none can, or `place` cannot be written.
    """
    found = _mapped(pictures, place)
    if found is None or found.may_change:
        try:
            place.mkdir(parents=True, exist_ok=True)
            with alone(place / ".lock", title):
                found = _mapped(pictures, place)  # by another run, while this one waited
                if found is None or found.may_change:
                    _make(pictures, place, title, mend, skip)
                    found = _mapped(pictures, place)
        except OSError as error:
            raise unwritable(place, error) from error
        assert found is not None, "what was made is there"
    if found.skipped and not skip:
        raise _unreadable(title, mend, *found.skipped[0])
    return found


def _unreadable(title: str, mend: str, name: str, why: str) -> DataError:
    return DataError(f"{title}: {printable(name)} cannot be read as an image ({why}); {mend}")


def _mapped(pictures: Pictures, place: Path) -> Decoded | None:
    values, index = _files(place, pictures.fingerprint)
    try:
        described = json.loads(index.read_text(encoding="utf-8"))
        kept = np.ones(len(pictures.names), bool)
        kept[[number for number, _ in described["skipped"]]] = False
        shape = (int(kept.sum()), *pictures.shape)
        if values.stat().st_size != np.prod(shape, dtype=np.int64):
            return None
        mapped = np.memmap(values, np.uint8, "r", shape=shape)
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return None
    skipped = [(pictures.names[number], why) for number, why in described["skipped"]]
    return Decoded(mapped, np.flatnonzero(kept), skipped)


def _files(place: Path, name: str) -> tuple[Path, Path]:
    return place / f"{name}.bytes", place / f"{name}.json"


def _make(pictures: Pictures, place: Path, title: str, mend: str, skip: bool) -> None:
    """Decode into a file beside the others; the index, written last, makes it count; older states go."""
    values, index = _files(place, pictures.fingerprint)
    temporary = place / f".{os.getpid()}.tmp"
    count, skipped = len(pictures.names), []
    print(f"{title}: decoding {count:,} images into {place}, once", file=sys.stderr, flush=True)
    try:
        with temporary.open("wb") as file, quiet():
            outcomes = tqdm(_outcomes(pictures), total=count, desc="decoding", unit=" images", disable=None)
            for number, outcome in enumerate(outcomes):
                if not isinstance(outcome, str):
                    file.write(outcome.data)
                elif skip:
                    skipped.append((number, outcome))
                else:
                    raise _unreadable(title, mend, pictures.names[number], outcome)
            if len(skipped) == count:
                raise DataError(f"{title}: none of its {count:,} images can be read{_first(skipped)}")
            file.flush()
            os.fsync(file.fileno())
        _remove_others(place, temporary)
        temporary.replace(values)
        temporary.write_text(json.dumps({"skipped": skipped}), encoding="utf-8")
        temporary.replace(index)
    finally:
        temporary.unlink(missing_ok=True)


def _first(skipped: Sequence[tuple[int, str]]) -> str:
    return f" ({skipped[0][1]})" if skipped else ""


def _remove_others(place: Path, kept: Path) -> None:
    for path in place.iterdir():
        if path != kept and path.suffix in (".bytes", ".json", ".tmp"):
            path.unlink(missing_ok=True)


def _outcomes(pictures: Pictures) -> Iterator[Outcome]:
    """Every picture's bytes, or why there are none, in order; threads work on the next few."""

    def work(names: Sequence[str]) -> list[Outcome]:
        return [_outcome(pictures, name) for name in names]

    workers = _cores()
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
            values = pictures.prepare(file)
    except Image.UnidentifiedImageError:
        return "not an image of a kind that is read"
    except Exception as error:  # a picture may break in any way, and there is one thing to say
        from_system = isinstance(error, OSError) and error.errno is not None
        return f"{FROM_SYSTEM}{describe(error)}" if from_system else describe(error)
    assert values.shape == pictures.shape and values.dtype == np.uint8
    return values


def _cores() -> int:
    available = getattr(os, "sched_getaffinity", None)
    return len(available(0)) if available else os.cpu_count() or 1
