"""A job of a sweep: its directory, named by the settings in which jobs differ, and job.json, which says what it is."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from vae_cli.runs.reader import JOB, Run, stored_checkpoints
from vae_cli.system.atomic import write_text

LONGEST_NAME = 64
ENDED = ("completed", "pruned", "interrupted", "failed")

# Settings that do not change a job's results: it is the same job with other values, unless they are swept.
WITHOUT_EFFECT = ("threads", "device", "data_dir", "checkpoint_every", "sample_every", "logger", "report", "allow")

DIRECTORY_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,79}")
SETTING_FOR_A_NAME = re.compile(r"[a-z][a-z0-9_.]*=[a-z0-9._-]*[a-z0-9]")  # others need a digest to stay apart


@dataclass(frozen=True)
class Job:
    """One job of a sweep.

    Args:
        number: its number, the same whenever the sweep is started again.
        overrides: its settings, as Hydra reads them.
        path: its run directory.
        swept: the keys that take several values in the sweep.
        trial: the number of the search's trial that it trains.
        pruned: whether the search ended it early.
    """

    number: int
    overrides: tuple[str, ...]
    path: Path
    swept: tuple[str, ...] = ()
    trial: int | None = None
    pruned: bool = False

    @property
    def settings(self) -> str:
        """Return the settings in which it differs from other jobs."""
        return " ".join([text for text in self.overrides if key_of(text) in self.swept] or self.overrides)

    @property
    def title(self) -> str:
        return f"job {self.number} ({self.settings})"

    @property
    def run(self) -> Run:
        """Return its run directory, read anew."""
        return Run(self.path, self.path.name)

    @property
    def status(self) -> str:
        """Return the status of its run, or `pending` where nothing is saved of it yet."""
        status = self.run.status
        return "pending" if status == "unfinished" and not stored_checkpoints(self.path) else status

    def write(self) -> None:
        """Write job.json."""
        record = {"job": self.number, "overrides": self.overrides, "swept": self.swept}
        record |= {} if self.trial is None else {"trial": self.trial}
        write_text(self.path / JOB, json.dumps(record | ({"pruned": True} if self.pruned else {}), indent=2) + "\n")

    def write_summary(self, status: str, error: str | None = None) -> None:
        """Write the summary of a job whose training has not."""
        write_text(self.path / "summary.json", json.dumps({"status": status, "error": error}, indent=2) + "\n")


def read_job(path: Path) -> Job | None:
    """Return the job that a directory was made for, or None."""
    record = Run(path, path.name).job
    number, overrides, swept, trial = (record.get(key) for key in ("job", "overrides", "swept", "trial"))
    if not isinstance(number, int) or not isinstance(overrides, list):
        return None
    keys = tuple(map(str, swept)) if isinstance(swept, list) else ()
    trial = trial if isinstance(trial, int) else None
    return Job(number, tuple(map(str, overrides)), path, keys, trial, bool(record.get("pruned")))


def read_jobs(sweep: Path) -> list[Job]:
    """Return all jobs in a sweep's directory, by number."""
    folders = [path.parent for path in sweep.glob(f"*/{JOB}")]
    jobs = [read_job(path) for path in folders if DIRECTORY_NAME.fullmatch(path.name) and not path.is_symlink()]
    return sorted((job for job in jobs if job is not None), key=lambda job: job.number)


def assign_directories(sweep: Path, combinations: Iterable[Sequence[str]], swept: Collection[str]) -> list[Job]:
    """Return a job for each combination of settings: the one that has them already, or a new one.

    Args:
        sweep: the sweep's directory.
        combinations: the overrides of each job.
        swept: the keys that take several values.
    """
    earlier = read_jobs(sweep)
    by_identity = {_identity(job.overrides, job.swept): job for job in earlier}
    next_number = max((job.number for job in earlier), default=-1) + 1
    jobs: dict[frozenset[str], Job] = {}
    for overrides in combinations:
        identity = _identity(overrides, swept)
        if identity in jobs:
            continue
        job = by_identity.get(identity)
        if job is None:
            path = sweep / _free_name(sweep, overrides, swept, identity)
            jobs[identity] = save_job(path, next_number, overrides, swept)
            next_number += 1
        else:
            jobs[identity] = save_job(job.path, job.number, overrides, swept)
    return list(jobs.values())


def save_job(
    path: Path, number: int, overrides: Sequence[str], swept: Collection[str], trial: int | None = None
) -> Job:
    """Make a job's directory and write its job.json; that it was pruned is kept."""
    path.mkdir(parents=True, exist_ok=True)
    earlier = read_job(path)
    job = Job(number, tuple(overrides), path, tuple(sorted(swept)), trial, bool(earlier and earlier.pruned))
    job.write()
    return job


def _identity(overrides: Sequence[str], swept: Collection[str]) -> frozenset[str]:
    """Return the settings that two jobs must share to be the same."""
    last = {key_of(text): text for text in overrides}
    return frozenset(text for key, text in last.items() if key in swept or has_effect(key))


def has_effect(key: str) -> bool:
    """Return whether a job's results depend on a dotted key."""
    return key.partition(".")[0] not in WITHOUT_EFFECT


def key_of(override: str) -> str:
    """Return the key that an override sets."""
    return override.lstrip("+~").partition("=")[0]


def _free_name(sweep: Path, overrides: Sequence[str], swept: Collection[str], identity: frozenset[str]) -> str:
    """Return a name for a new job's directory: of letters, digits, `.`, `-` and `_`, short, and not in use."""
    settings = [text for text in overrides if key_of(text) in swept] or list(overrides) or ["job=default"]
    name = "__".join(re.sub(r"[^A-Za-z0-9_.]+", "-", text).strip("-.") for text in settings)
    is_faithful = all(SETTING_FOR_A_NAME.fullmatch(text) and "__" not in text for text in settings)
    digest = hashlib.sha256("\n".join(sorted(identity)).encode(errors="surrogatepass")).hexdigest()
    candidates = [name] if is_faithful and len(name) <= LONGEST_NAME else []
    candidates += [f"{name[: LONGEST_NAME - 1 - n].rstrip('-._')}-{digest[:n]}" for n in (8, 32)]
    for candidate in candidates:
        path = sweep / candidate
        if not path.exists() or (path.is_dir() and not any(path.iterdir())):
            return candidate
    return candidates[-1]
