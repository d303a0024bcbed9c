"""Run directories, as their files tell of them."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from vae_cli.errors import UserError
from vae_cli.system.locks import is_locked

LARGEST = 100_000_000  # bytes of a file that is read; none that a run leaves is nearly as large
LARGEST_CONFIG = 1_000_000  # characters
LEFT = ("summary.json", "config.yaml", "checkpoints")  # any of which makes a directory a run's
STATUSES = ("completed", "pruned", "interrupted", "failed", "running", "unfinished")
LOCK = "checkpoints/.lock"  # held by the process that trains
JOB = "job.json"  # of a run that is a job of a sweep
TRAVERSED_DIMENSIONS = 20  # of the latent ones, at most, in a run's traversals.png

TEST_METRICS = ("elbo", "reconstruction", "kl", "bound")
EVALUATION_METRICS = (
    *("log_likelihood", "bits_per_dim", "mse", "psnr", "active_units", "mmd", "index_code_mi"),
    *("knn_accuracy", "linear_probe_accuracy"),
)
METRICS = (*TEST_METRICS, "validation_elbo", *EVALUATION_METRICS, "seconds", "parameters")
LOWER_IS_BETTER = frozenset({"bits_per_dim", "mse", "mmd", "seconds", "parameters"})


@dataclass(frozen=True)
class Run:
    """One run directory. Files that are missing or broken count as empty: a run may have been killed anywhere.

    Args:
        path: the directory.
        name: what to call it.
        has_ended: its training is over, although this process, which trained it, still holds its lock.
    """

    path: Path
    name: str
    has_ended: bool = False

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The resolved settings."""
        return _yaml(read(self.path / "config.yaml"))

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(read(self.path / "summary.json"))

    @cached_property
    def job(self) -> dict[str, Any]:
        """What a sweep keeps of it."""
        return _json(read(self.path / JOB))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """What vae-evaluate found last, if it looked at the weights that the run ended with."""
        found, step = _json(read(self.path / "evaluation.json")), self.summary.get("step")
        return {} if step is not None and found.get("step", step) != step else found

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that have an epoch and a split."""
        found = map(_json, read(self.path / "metrics.jsonl").splitlines())
        return [line for line in found if isinstance(line.get("epoch"), int) and isinstance(line.get("split"), str)]

    @cached_property
    def commands(self) -> list[str]:
        """The commands that it was trained with, the first one first."""
        return read(self.path / "command.txt").splitlines()

    @cached_property
    def status(self) -> str:
        """`running` while a training is at work; else `completed`, `interrupted` or `failed` as its summary says,
        `pruned` where a search has interrupted it, and `unfinished` without a summary."""
        if not self.has_ended and is_locked(self.path / LOCK):
            return "running"
        status = self.summary.get("status")
        if status == "interrupted" and self.job.get("pruned"):
            return "pruned"
        return str(status) if status in STATUSES else "unfinished"

    @property
    def error(self) -> str:
        """Why it failed, in one line; empty if it did not."""
        return " ".join(str(self.summary.get("error") or "").split())

    @property
    def epochs(self) -> int | None:
        """How many epochs were trained."""
        done = self.summary.get("epochs")
        if isinstance(done, int):
            return done
        return max((line["epoch"] for line in self.metrics), default=None)

    @property
    def speed(self) -> float | None:
        """Images per second: the median over the epochs."""
        found = sorted(
            value
            for line in self.metrics
            if line["split"] == "train" and (value := finite(line.get("images_per_second"))) is not None
        )
        return found[len(found) // 2] if found else None

    def number(self, metric: str) -> float | None:
        """One of `METRICS`: of the test split but for `validation_elbo`, the best epoch's or the last one's so far."""
        if metric in TEST_METRICS:
            return finite(mapping(self.summary.get("test")).get(metric))
        if metric == "validation_elbo":
            best = finite(mapping(self.summary.get("validation")).get("elbo"))
            return self._last_validation() if best is None else best
        if metric in EVALUATION_METRICS:
            of_test = self.evaluation.get("split") == "test" and self.evaluation.get("path") is None
            return finite(mapping(self.evaluation.get(metric)).get("value")) if of_test else None
        if metric == "seconds":
            return self._seconds()
        return finite(self.summary.get(metric))

    def _seconds(self) -> float | None:
        """What the last training took, or all epochs together where that is more: of a run that was resumed."""
        known = finite(self.summary.get("seconds"))
        epochs = [finite(line.get("seconds")) or 0.0 for line in self.metrics if line["split"] == "train"]
        return max(known or 0.0, sum(epochs)) or None

    @property
    def evaluated_images(self) -> int | None:
        """How many test images vae-evaluate looked at."""
        return None if self.number("log_likelihood") is None else mapping(self.evaluation["log_likelihood"]).get("n")

    def _last_validation(self) -> float | None:
        found = [finite(line.get("elbo")) for line in self.metrics if line["split"] == "validation"]
        return found[-1] if found else None

    def flat_settings(self) -> dict[str, Any]:
        """Dotted keys and their values; of a group, the class that was chosen."""
        return dict(flat(self.settings))


def find(places: Sequence[str]) -> list[Run]:
    """The runs in directories of runs or of sweeps, or in those that a pattern such as `runs/*` matches, each once.

    Raises:
        UserError: if a place is none, or there is no run in any.
    """
    directories: dict[Path, Path] = {}
    for place in places:
        for path in _expanded(place):
            for found in _below(path):
                directories.setdefault(found.resolve(), found)
    if not directories:
        raise UserError(f"{', '.join(places)}: no run of vae-train in it; name run or sweep directories")
    return [Run(path, name) for path, name in zip(directories.values(), _names(list(directories.values())))]


def _expanded(place: str) -> list[Path]:
    path = Path(place).expanduser()
    if path.is_dir():
        return [path]
    matches = [Path(match) for match in sorted(glob(str(path), recursive=True))]  # noqa: PTH207
    folders = [match for match in matches if match.is_dir()]
    if not folders:
        what = "is a file" if path.exists() else "matches no directory" if has_magic(place) else "does not exist"
        raise UserError(f"{place} {what}; name run or sweep directories")
    return folders


def _below(folder: Path) -> Iterator[Path]:
    """The run directories at or below a folder, in the order of their names, numbers by their size."""
    if any((folder / name).exists() for name in LEFT):
        yield folder
        return
    try:
        inside = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return
    for entry in sorted(inside, key=_natural):
        yield from _below(entry)


def _natural(path: Path) -> tuple[int, int, str]:
    return (0, int(path.name), "") if path.name.isdecimal() else (1, 0, path.name)


def _names(paths: list[Path]) -> list[str]:
    """The directories' paths from where all of them lie."""
    if len(paths) == 1:
        return [paths[0].resolve().name]
    whole = [path.absolute() for path in paths]
    common = Path(os.path.commonpath([path.parent for path in whole]))
    return [path.relative_to(common).as_posix() for path in whole]


def differing(runs: Iterable[Run]) -> list[str]:
    """The settings in which some of the runs differ from others: a key that only some parts have counts where it takes
    several values."""
    known = [run.flat_settings() for run in runs]
    found: dict[str, list[Any]] = {}
    for settings in known:
        for key, value in settings.items():
            found.setdefault(key, []).append(value)
    return [key for key, values in found.items() if any(value != values[0] for value in values)]


def ranked(runs: Sequence[Run], metric: str) -> list[Run]:
    """The runs by a metric, the best first; those that are not completed behind, and those without it last."""
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def place(run: Run) -> tuple[bool, bool, float]:
        value = run.number(metric)
        return (value is None, run.status != "completed", 0.0 if value is None else sign * value)

    return sorted(runs, key=place)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Settings under dotted keys; of a group, the class that was chosen."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif key == "_target_":
            yield prefix.removesuffix("."), str(value).rpartition(".")[2]
        else:
            yield f"{prefix}{key}", value


def read(path: Path) -> str:
    """A text file's contents; empty if there is none that one would want to read."""
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """A file's bytes; none of a larger one, nor of a link or anything else that is no plain file."""
    try:
        seen = path.lstat()
        return path.read_bytes() if stat.S_ISREG(seen.st_mode) and seen.st_size <= most else b""
    except OSError:
        return b""


def _yaml(text: str) -> dict[str, Any]:
    """A mapping of plain values; an empty one if the text is none, is large, or refers to its own parts."""
    import yaml

    class Plain(yaml.SafeLoader):
        yaml_implicit_resolvers = {
            start: [rule for rule in rules if not rule[0].endswith(":timestamp")]
            for start, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }

        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise yaml.YAMLError("an alias")
            return super().compose_node(parent, index)

    try:
        found = yaml.load(text, Plain) if len(text) <= LARGEST_CONFIG else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else {}


def _json(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def mapping(value: Any) -> Mapping[str, Any]:
    """A value that should be a mapping; an empty one if it is none."""
    return value if isinstance(value, Mapping) else {}


def finite(value: Any) -> float | None:
    """A value that should be a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None
