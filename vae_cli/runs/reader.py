"""Run directories, read from their files."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from glob import glob, has_magic
from pathlib import Path
from typing import Any

from vae_cli.errors import UserError
from vae_cli.runs.config_file import with_later_keys
from vae_cli.system.locks import is_locked
from vae_cli.system.paths import expand

LARGEST_FILE = 100_000_000  # bytes; larger ones are not read, and no run writes one
LARGEST_CONFIG = 1_000_000  # characters

STATUSES = ("completed", "pruned", "interrupted", "failed", "running", "unfinished")
CHECKPOINTS, BEST, LAST = "checkpoints", "best.safetensors", "last.safetensors"
RUN_FILES = ("summary.json", "config.yaml", CHECKPOINTS)  # any of which makes a directory a run's
LOCK = f"{CHECKPOINTS}/.lock"  # held by the process that trains
JOB = "job.json"  # of a run that is a job of a sweep

# The numbers of a run: of its test split, of vae-evaluate, and all by which runs are sorted.
TEST_METRICS = ("elbo", "reconstruction", "kl", "bound")
DISENTANGLEMENT_METRICS = (
    *("mig", "dci_disentanglement", "dci_completeness", "dci_informativeness", "sap", "modularity"),
    *("beta_vae_score", "factor_vae_score", "gaussian_total_correlation", "udr"),
)
EVALUATION_METRICS = (
    *("log_likelihood", "bits_per_dim", "mse", "psnr", "active_units", "mmd", "index_code_mi"),
    *("knn_accuracy", "linear_probe_accuracy"),
    *DISENTANGLEMENT_METRICS,
)
# Where `generation` of evaluation.json has them: of samples from the prior, if not named otherwise.
GENERATION_METRICS = {
    **{name: ("samples", "prior", name) for name in ("frechet_distance", "kernel_distance", "fid", "kid")},
    **{f"{name}_{of}": ("samples", of, name) for of in ("gmm", "aggregate") for name in ("frechet_distance", "fid")},
    **{f"{name}_reconstructions": ("reconstructions", name) for name in ("frechet_distance", "fid")},
    **{f"sample_{name}": ("samples", "prior", name) for name in ("precision", "recall", "density", "coverage")},
}
METRICS = (*TEST_METRICS, "validation_elbo", *EVALUATION_METRICS, *GENERATION_METRICS, "seconds", "parameters")
LOWER_IS_BETTER = frozenset(
    {"bits_per_dim", "mse", "mmd", "gaussian_total_correlation", "seconds", "parameters"}
    | {name for name in GENERATION_METRICS if not name.startswith("sample_")}
)


@dataclass(frozen=True)
class Run:
    """A run directory. Missing and broken files count as empty: a run may have been killed at any moment.

    Args:
        path: the directory.
        name: of the run among others.
        has_ended: its training is over, although this process, which trained it, still holds its lock.
    """

    path: Path
    name: str
    has_ended: bool = False

    @cached_property
    def settings(self) -> dict[str, Any]:
        """The contents of config.yaml; empty if there are none."""
        stored = _yaml(read(self.path / "config.yaml"))
        return with_later_keys(stored) if stored else {}

    @cached_property
    def summary(self) -> dict[str, Any]:
        return _json(read(self.path / "summary.json"))

    @cached_property
    def job(self) -> dict[str, Any]:
        """The contents of job.json, which a sweep writes."""
        return _json(read(self.path / JOB))

    @cached_property
    def evaluation(self) -> dict[str, Any]:
        """The contents of evaluation.json, unless it scores other weights than those that the run ended with."""
        evaluation, step = _json(read(self.path / "evaluation.json")), self.summary.get("step")
        return {} if step is not None and evaluation.get("step", step) != step else evaluation

    @cached_property
    def metrics(self) -> list[dict[str, Any]]:
        """The lines of metrics.jsonl that have an epoch and a split."""
        lines = map(_json, read(self.path / "metrics.jsonl").splitlines())
        return [line for line in lines if isinstance(line.get("epoch"), int) and isinstance(line.get("split"), str)]

    @cached_property
    def commands(self) -> list[str]:
        """The lines of command.txt: the commands that trained it, in order."""
        return read(self.path / "command.txt").splitlines()

    @cached_property
    def status(self) -> str:
        """One of `STATUSES`: `running` while its lock is held, `pruned` where a search has interrupted it, `unfinished`
        without a summary, else what the summary says."""
        if not self.has_ended and is_locked(self.path / LOCK):
            return "running"
        status = self.summary.get("status")
        if status == "interrupted" and self.job.get("pruned"):
            return "pruned"
        return str(status) if status in STATUSES else "unfinished"

    @property
    def error(self) -> str:
        """The reason why it failed, in one line; empty if it did not."""
        return " ".join(str(self.summary.get("error") or "").split())

    @property
    def warnings(self) -> list[str]:
        """The warnings of its training, one line each."""
        texts = self.summary.get("warnings")
        return [text for text in texts if isinstance(text, str)] if isinstance(texts, list) else []

    @property
    def epochs(self) -> int | None:
        """The number of epochs that were trained."""
        done = self.summary.get("epochs")
        if isinstance(done, int):
            return done
        return max((line["epoch"] for line in self.metrics), default=None)

    @property
    def speed(self) -> float | None:
        """Images per second: the median over the epochs."""
        speeds = sorted(
            speed
            for line in self.metrics
            if line["split"] == "train" and (speed := finite(line.get("images_per_second"))) is not None
        )
        return speeds[len(speeds) // 2] if speeds else None

    def number(self, metric: str) -> float | None:
        """Return one of `METRICS`, of the test split but for `validation_elbo`; None if it is not known.

        `validation_elbo` is the best epoch's, or as long as none is chosen the last one's. `seconds` is the time of the
        last training, or of all epochs together where that is more: of a run that was resumed.
        """
        if metric in TEST_METRICS:
            return finite(mapping(self.summary.get("test")).get(metric))
        if metric == "validation_elbo":
            best = finite(mapping(self.summary.get("validation")).get("elbo"))
            elbos = [finite(line.get("elbo")) for line in self.metrics if line["split"] == "validation"]
            return elbos[-1] if best is None and elbos else best
        if metric in (*EVALUATION_METRICS, *GENERATION_METRICS):
            is_of_test = self.evaluation.get("split") == "test" and self.evaluation.get("path") is None
            number: Any = self.evaluation
            place = ("generation", *GENERATION_METRICS[metric]) if metric in GENERATION_METRICS else (metric,)
            for key in ("disentanglement", metric) if metric in DISENTANGLEMENT_METRICS else place:
                number = mapping(number).get(key)
            return finite(mapping(number).get("value")) if is_of_test else None
        if metric == "seconds":
            last = finite(self.summary.get("seconds")) or 0.0
            epochs = [finite(line.get("seconds")) or 0.0 for line in self.metrics if line["split"] == "train"]
            return max(last, sum(epochs)) or None
        return finite(self.summary.get(metric))

    @property
    def noun(self) -> str:
        """What an example is called."""
        return str(mapping(self.summary.get("data")).get("noun", "image"))

    @property
    def evaluated_examples(self) -> int | None:
        """The number of test examples that vae-evaluate scored."""
        return None if self.number("log_likelihood") is None else mapping(self.evaluation["log_likelihood"]).get("n")

    def flat_settings(self) -> dict[str, Any]:
        """Return the settings under dotted keys; of a group, the class that was chosen."""
        return dict(flat(self.settings))


def directory_of(checkpoint: Path) -> Path:
    """Return the run directory that a checkpoint lies in; else its folder."""
    folder = checkpoint.absolute().parent
    return folder.parent if folder.name == CHECKPOINTS else folder


def stored_checkpoints(directory: Path) -> list[Path]:
    """Return the checkpoints in a run directory, by name."""
    return sorted((directory / CHECKPOINTS).glob("*.safetensors"))


def runs_below(folder: Path) -> list[Path]:
    """Return the runs with a checkpoint in a folder, the newest first; of the first of three levels that has any."""
    for level in ("*", "*/*", "*/*/*"):
        times: dict[Path, float] = {}
        for pattern in (f"{level}/{CHECKPOINTS}/{name}" for name in (BEST, LAST)):
            for path in folder.glob(pattern):
                with suppress(OSError):  # of a link that leads nowhere
                    run = path.parent.parent
                    times[run] = max(times.get(run, 0.0), path.stat().st_mtime)
        if times:
            return sorted(times, key=lambda run: times[run], reverse=True)
    return []


def find(paths: Sequence[str]) -> list[Run]:
    """Return the runs at or below directories, or at those that a pattern such as `runs/*` matches, each once.

    Their names are their paths from the folder that all of them have in common.

    Raises:
        UserError: if a path is no directory, or there is no run in any.
    """
    directories: dict[Path, Path] = {}
    for path in paths:
        for folder in _matches(path):
            for directory in _run_directories(folder):
                directories.setdefault(directory.resolve(), directory)
    if not directories:
        raise UserError(f"{', '.join(paths)}: no run of vae-train in it; name run or sweep directories")
    if len(directories) == 1:
        return [Run(directory, directory.resolve().name) for directory in directories.values()]
    absolute = [directory.absolute() for directory in directories.values()]
    common = Path(os.path.commonpath([directory.parent for directory in absolute]))
    names = [directory.relative_to(common).as_posix() for directory in absolute]
    return [Run(directory, name) for directory, name in zip(directories.values(), names)]


def _matches(pattern: str) -> list[Path]:
    path = expand(pattern)
    if path.is_dir():
        return [path]
    matches = [Path(match) for match in sorted(glob(str(path), recursive=True))]  # noqa: PTH207
    folders = [match for match in matches if match.is_dir()]
    if not folders:
        reason = "is a file" if path.exists() else "matches no directory" if has_magic(pattern) else "does not exist"
        raise UserError(f"{pattern} {reason}; name run or sweep directories")
    return folders


def _run_directories(folder: Path) -> Iterator[Path]:
    """Yield the run directories at or below a folder, in the order of their names, numbers by their size."""
    if any((folder / name).exists() for name in RUN_FILES):
        yield folder
        return
    try:
        children = [entry for entry in folder.iterdir() if entry.is_dir() and not entry.is_symlink()]
    except OSError:
        return
    numbered = sorted((child for child in children if child.name.isdecimal()), key=lambda child: int(child.name))
    named = sorted(child for child in children if not child.name.isdecimal())
    for child in (*numbered, *named):
        yield from _run_directories(child)


def differing(runs: Iterable[Run]) -> list[str]:
    """Return the dotted keys of the settings that have several values among the runs that have them."""
    values: dict[str, list[Any]] = {}
    for run in runs:
        for key, value in run.flat_settings().items():
            values.setdefault(key, []).append(value)
    return [key for key, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)]


def ranked(runs: Sequence[Run], metric: str) -> list[Run]:
    """Return the runs by a metric, the best first; then those that are not completed, and last those without it."""
    sign = 1 if metric in LOWER_IS_BETTER else -1

    def rank(run: Run) -> tuple[bool, bool, float]:
        value = run.number(metric)
        return (value is None, run.status != "completed", 0.0 if value is None else sign * value)

    return sorted(runs, key=rank)


def flat(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield settings under dotted keys; of a group, the class that was chosen."""
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        elif key == "_target_":
            yield prefix.removesuffix("."), str(value).rpartition(".")[2]
        else:
            yield f"{prefix}{key}", value


def read(path: Path) -> str:
    """Return a text file's contents; empty if it is missing, too large or no plain file."""
    return read_bytes(path).decode("utf-8", errors="replace")


def read_bytes(path: Path, most: int = LARGEST_FILE) -> bytes:
    """Return a file's bytes; none of a larger one, nor of a link or anything else that is no plain file."""
    try:
        status = path.lstat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= most else b""
    except OSError:
        return b""


def _yaml(text: str) -> dict[str, Any]:
    """Return a mapping of plain values; an empty one if the text is none, is large, or refers to its own parts."""
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
        value = yaml.load(text, Plain) if len(text) <= LARGEST_CONFIG else None
    except (yaml.YAMLError, ValueError, RecursionError):
        return {}
    return {str(key): item for key, item in value.items()} if isinstance(value, dict) else {}


def _json(text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a value that should be a mapping; an empty one if it is none."""
    return value if isinstance(value, Mapping) else {}


def finite(value: Any) -> float | None:
    """Return a value that should be a finite number; None if it is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        return value if math.isfinite(value) else None
    except OverflowError:
        return None
