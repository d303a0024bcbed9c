"""The study of a search: Optuna suggests settings, and learns how they did. It knows nothing of Hydra."""

from __future__ import annotations

import hashlib
import math
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from vae_cli.build.settings import FEWEST_EPOCHS
from vae_cli.constraints import Count, Described, Index, accepts, describe_type
from vae_cli.errors import ConfigError, first_line, without_passwords
from vae_cli.runs.reader import TEST_METRICS, Run, finite, mapping
from vae_cli.sweeps import search_space
from vae_cli.sweeps.job import Job
from vae_cli.training import signals

if TYPE_CHECKING:
    import optuna

Direction = Literal["maximize", "minimize"]
SETTINGS = {  # of hydra.sweeper
    "n_trials": Count,
    "n_jobs": Count,
    "sampler": Literal["tpe", "random", "grid", "nsga2"],
    "pruner": Literal["none", "median", "hyperband"],
    "pruner_warmup": Annotated[Count | None, Described("null or epochs, an integer of at least 1")],
    "direction": Annotated[
        None | Direction | Sequence[Direction],
        Described("null, maximize or minimize, or a list of one for each number"),
    ],
    "seed": Index,
    "storage": str | None,
    "study_name": str | None,
}
LARGER_IS_BETTER = ("elbo", "bound", "reconstruction", "images_per_second")
SUMMARY_NUMBERS = ("seconds", "parameters")  # which belong to no split
ATTEMPTS = 3  # at opening a storage
PATIENCE = 60  # seconds that processes wait for each other's writing


@dataclass(frozen=True)
class Trial:
    """One point of the search: its number, its settings as Hydra reads them, and the values that they came to."""

    number: int
    overrides: Mapping[str, str]
    values: tuple[float, ...] = ()


@dataclass(frozen=True)
class Study:
    """A study and how it is searched: plain data, so that jobs in other processes can report to it.

    Args:
        metrics: the numbers to optimize, such as `validation/elbo`.
        directions: `maximize` or `minimize`, for each.
        space: where each key takes its values.
        n_trials: in all.
        sampler, pruner: one of those in `SETTINGS`.
        warmup, epochs: no trial is pruned before so many epochs; how many a trial has.
        seed: of the sampler.
        storage: a database's address; None for a file in the sweep's directory.
        name: of the study in it.
        is_shared: whether other sweeps may search the same study.
        sweep: the directory of the sweep.
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Any]
    n_trials: int
    sampler: str
    pruner: str
    warmup: int
    epochs: int
    seed: int
    storage: str | None
    name: str
    is_shared: bool
    sweep: str = ""

    # Opening

    def open(self, sweep: Path, overrides: Sequence[str]) -> Study:
        """Return the study with its storage, which is made if need be.

        Args:
            sweep: the sweep's directory.
            overrides: what it is searched with.

        Raises:
            ConfigError: if it cannot be opened, or was begun with other overrides.
        """
        opened = replace(self, storage=self.storage or f"sqlite:///{sweep / 'study.db'}", sweep=str(sweep))
        study, begun_with = opened._create()
        overrides = sorted([*overrides, *(f"optimize={metric}" for metric in self.metrics)])
        if begun_with is None or not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
            study.set_user_attr("overrides", overrides)
        elif begun_with != overrides:
            other = "hydra.sweeper.study_name" if self.is_shared else "sweep"
            raise ConfigError(
                f"the study in {without_passwords(str(opened.storage))} was begun with {' '.join(begun_with)}; "
                f"search on with the same, or choose another {other}="
            )
        return opened

    def _create(self) -> tuple[optuna.Study, Any]:
        """Return Optuna's study and the overrides that it was begun with."""
        for attempt in range(ATTEMPTS):
            try:
                study = _optuna().create_study(
                    storage=_storage(self.storage),
                    study_name=self.name,
                    directions=list(self.directions),
                    load_if_exists=True,
                )
                return study, study.user_attrs.get("overrides")
            except Exception as error:
                what = without_passwords(f"hydra.sweeper.storage={self.storage} cannot be used: {first_line(error)}")
                if attempt + 1 == ATTEMPTS:
                    raise ConfigError(what) from error
                time.sleep(1)  # another machine may be making the tables at the same time
        raise AssertionError("the last attempt returns or raises")

    def _load(self) -> optuna.Study:
        pruners = _optuna().pruners
        pruner = pruners.NopPruner()
        if self.pruner == "median":
            pruner = pruners.MedianPruner(n_warmup_steps=self.warmup)
        elif self.pruner == "hyperband":
            pruner = pruners.HyperbandPruner(min_resource=self.warmup, max_resource=max(self.epochs, self.warmup))
        return _optuna().load_study(study_name=self.name, storage=_storage(self.storage), pruner=pruner)

    # Asking and telling

    @property
    def total(self) -> int:
        """The number of trials that there are to be."""
        if self.sampler == "grid":
            return min(self.n_trials, math.prod(map(len, search_space.grid(self.space).values())))
        return self.n_trials

    def ask(self, most: int) -> list[Trial]:
        """Return new trials, at most so many and `total` in all."""
        study, trials = self._load(), []
        for _ in range(most):
            earlier = study.get_trials(deepcopy=False)
            is_repeating = any(trial.state.name == "WAITING" for trial in earlier)
            if not is_repeating and sum("again" not in trial.user_attrs for trial in earlier) >= self.total:
                break
            study.sampler = _sampler(self.sampler, f"{self.seed}/{len(earlier)}", self.space)
            asked = study.ask(dict(self.space))
            asked.set_user_attr("sweep", self.sweep)
            trials.append(Trial(asked.number, _as_overrides(asked.params)))
        return trials

    def unfinished(self) -> list[Trial]:
        """Return the trials of this sweep that an earlier start of it has asked for and not told."""
        trials = self._load().get_trials(deepcopy=False)
        running = [trial for trial in trials if trial.state.name == "RUNNING"]
        mine = [trial for trial in running if not self.is_shared or trial.user_attrs.get("sweep") == self.sweep]
        points = [trial for trial in mine if search_space.contains(self.space, trial.params)]
        return [Trial(trial.number, _as_overrides(trial.params)) for trial in points]

    def repeat_failed(self) -> None:
        """Let the failed trials' settings be asked for again, beside the trials that there were to be."""
        study = self._load()
        trials = study.get_trials(deepcopy=False)
        done = [trial.params for trial in trials if trial.state.name != "FAIL"]
        for trial in trials:
            if trial.state.name == "FAIL" and trial.params not in done:
                done.append(trial.params)
                study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def tell(self, jobs: Sequence[Job]) -> None:
        """Tell the results of trials whose jobs have ended. An interrupted one stays open for the next start.

        Raises:
            ConfigError: if a completed training does not have the number to optimize.
        """
        from optuna.trial import TrialState

        study = self._load()
        for job in jobs:
            status, values = job.status, [number_of(job, metric) for metric in self.metrics]
            assert job.trial is not None
            with suppress(RuntimeError):  # by which the grid's last point ends a loop of Optuna's, which is not ours
                if status == "pruned":
                    study.tell(job.trial, state=TrialState.PRUNED)
                elif status == "completed" and None not in values:
                    study.tell(job.trial, [value for value in values if value is not None])
                elif status in ("completed", "failed"):
                    study.tell(job.trial, state=TrialState.FAIL)
            if status == "completed" and None in values:
                _check_metric_exists(self.metrics[values.index(None)], job.run)

    def best(self) -> list[Trial]:
        """Return the best trial; of several metrics all that no other trial beats in each."""
        best = self._load().best_trials[: None if len(self.metrics) > 1 else 1]
        points = [trial for trial in best if search_space.contains(self.space, trial.params)]
        return [Trial(trial.number, _as_overrides(trial.params), tuple(trial.values)) for trial in points]

    def describe(self, trial: Trial) -> str:
        """Return a finished trial in one line."""
        shown = [f"{value:,.0f}" if value == int(value) else f"{value:,.4f}" for value in trial.values]
        numbers = ", ".join(f"{metric} {value}" for metric, value in zip(self.metrics, shown))
        return f"trial {trial.number}: {numbers}; {' '.join(f'{k}={v}' for k, v in trial.overrides.items())}"

    def pruner_of(self, job: Job) -> Pruner | None:
        """Return what a job's training is to call with its metrics, if trials are pruned."""
        return None if self.pruner == "none" or job.trial is None else Pruner(self, job.trial)


class Pruner:
    """A callback that reports a trial's epochs to its study, and ends a training that falls behind the others."""

    def __init__(self, study: Study, number: int) -> None:
        loaded = study._load()
        self.trial = _optuna().trial.Trial(loaded, loaded.trials[number]._trial_id)
        self.split, _, self.name = study.metrics[0].rpartition("/")
        self.epochs = study.epochs
        self.is_pruned = False

    def __call__(self, epoch: int, split: str, values: Mapping[str, float]) -> None:
        value = finite(values.get(self.name)) if split == self.split else None
        if value is not None:
            self.trial.report(float(value), epoch)
            if epoch < self.epochs and self.trial.should_prune():
                self.is_pruned = True
                signals.request_stop(signal.SIGTERM, "the search, which prunes it")


def make_study(
    settings: Mapping[str, Any], metrics: Sequence[str], space: Mapping[str, Any], config: Mapping[str, Any]
) -> Study:
    """Return the study that the settings of `hydra.sweeper` describe.

    Args:
        settings: those.
        metrics: the numbers to optimize.
        space: where each key takes its values.
        config: of a trial.

    Raises:
        ConfigError: naming a wrong setting, or two that do not go together.
    """
    for key, annotation in SETTINGS.items():
        if not accepts(annotation, settings[key]):
            raise ConfigError(f"hydra.sweeper.{key}={settings[key]}: it accepts {describe_type(annotation)}")
    for metric in metrics:
        _check_metric(metric)
        if metric.startswith("validation/") and config["dataset"].get("validation") == 0:
            raise ConfigError(f"optimize={metric}: dataset.validation=0 holds no images out to validate on")
    if settings["pruner"] != "none" and len(metrics) > 1:
        raise ConfigError("hydra.sweeper.pruner: trials with several numbers to optimize are not pruned; choose none")
    if settings["pruner"] != "none" and metrics[0] in SUMMARY_NUMBERS:
        raise ConfigError(
            f"hydra.sweeper.pruner needs a number of each epoch, optimize=validation/elbo; not {metrics[0]}"
        )
    if settings["storage"] is not None and not settings["study_name"]:
        raise ConfigError("hydra.sweeper.storage: name the study in it with hydra.sweeper.study_name=NAME")
    if settings["sampler"] == "grid":
        search_space.grid(space)
    epochs = FEWEST_EPOCHS if config["epochs"] == "auto" else config["epochs"]
    warmup = settings["pruner_warmup"]
    return Study(
        metrics=tuple(metrics),
        directions=_directions(settings["direction"], metrics),
        space=dict(space),
        n_trials=settings["n_trials"],
        sampler=settings["sampler"],
        pruner=settings["pruner"],
        warmup=max(1, epochs // 5 if warmup is None else warmup),
        epochs=epochs,
        seed=settings["seed"],
        storage=settings["storage"],
        name=settings["study_name"] or "vae_cli",
        is_shared=settings["storage"] is not None,
    )


def number_of(job: Job, metric: str) -> float | None:
    """Return a job's number: `validation/elbo` of its best epoch, `train/loss` of its last epoch, or `seconds`."""
    run = job.run
    split, _, name = metric.rpartition("/")
    if split == "train":
        lines = [line for line in run.metrics if line["split"] == "train"]
        return finite(lines[-1].get(name)) if lines else None
    return finite(mapping(run.summary.get(split)).get(name)) if split else run.number(name)


def _check_metric(metric: str) -> None:
    split, _, name = metric.rpartition("/")
    if split == "test" or (not split and name in TEST_METRICS):
        raise ConfigError(f"optimize={metric}: the test split is for the end; write optimize=validation/{name}")
    if not name or (split not in ("train", "validation") if split else name not in SUMMARY_NUMBERS):
        raise ConfigError(
            f"optimize={metric}: write validation/NAME, train/NAME or one of {', '.join(SUMMARY_NUMBERS)}"
        )


def _check_metric_exists(metric: str, run: Run) -> None:
    """Refuse to search on for a number that trainings do not have."""
    split, _, name = metric.rpartition("/")
    lines = [line for line in run.metrics if line["split"] == split]
    if not lines or name in lines[-1]:
        return
    names = [key for key, value in lines[-1].items() if finite(value) is not None and key not in ("epoch", "step")]
    near = get_close_matches(name, names, n=1)
    hint = f"did you mean {split}/{near[0]}?" if near else f"it has {', '.join(names)}"
    raise ConfigError(f"optimize={metric}: a training has no such number; {hint}")


def _directions(direction: Any, metrics: Sequence[str]) -> tuple[str, ...]:
    if direction is None:
        names = [metric.rpartition("/")[2] for metric in metrics]
        return tuple("maximize" if name in LARGER_IS_BETTER else "minimize" for name in names)
    directions = (direction,) * len(metrics) if isinstance(direction, str) else tuple(direction)
    if len(directions) != len(metrics):
        raise ConfigError(f"hydra.sweeper.direction={direction}: give one for each of {', '.join(metrics)}")
    return directions


def _as_overrides(params: Mapping[str, Any]) -> dict[str, str]:
    """Return keys and their values as Hydra reads them."""
    return {key: value if isinstance(value, str) else repr(value) for key, value in params.items()}


def _sampler(name: str, seed: str, space: Mapping[str, Any]) -> optuna.samplers.BaseSampler:
    """Return a sampler for one trial. Seeded by the trial's number, a search that goes on asks what it would have."""
    samplers = _optuna().samplers
    if name == "grid":
        return samplers.GridSampler(search_space.grid(space), seed=0)  # whose order is random otherwise
    kind = {"tpe": samplers.TPESampler, "random": samplers.RandomSampler, "nsga2": samplers.NSGAIISampler}[name]
    return kind(seed=int.from_bytes(hashlib.sha256(seed.encode()).digest()[:4], "little"))


@cache
def _storage(address: str | None) -> optuna.storages.RDBStorage:
    """Return a storage in which several processes wait for each other instead of failing."""
    assert address is not None, "the study is open"
    is_file = address.startswith("sqlite")
    options: dict[str, Any] = {"connect_args": {"timeout": PATIENCE}} if is_file else {"pool_pre_ping": True}
    return _optuna().storages.RDBStorage(address, engine_kwargs=options)


def _optuna() -> Any:
    """Return the module, without its log and its warnings of experiments."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna
