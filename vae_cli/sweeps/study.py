"""A search for settings: what Optuna is asked and told. Hydra and the jobs are others' business."""

from __future__ import annotations

import hashlib
import importlib
import math
import signal
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vae_cli.errors import ConfigError, without_passwords
from vae_cli.runs.listeners import heard_by
from vae_cli.runs.reader import TEST_METRICS, Run, finite, mapping
from vae_cli.sweeps.jobs import Job, State, write
from vae_cli.training import signals

if TYPE_CHECKING:
    import optuna

SAMPLERS = ("tpe", "random", "cmaes", "grid", "nsga2")
PRUNERS = ("none", "median", "hyperband")
DIRECTIONS = ("maximize", "minimize")
LARGER_IS_BETTER = ("elbo", "bound", "reconstruction", "images_per_second")
BARE = ("seconds", "parameters")  # numbers of no split
LARGEST_GRID = 100_000
STATE = (("cmaes._cma", "CMA"), ("numpy._core.multiarray", "_reconstruct"), ("numpy._core.multiarray", "scalar"))
PRUNING = "the search, which prunes it"
TRIES = 3  # at opening a storage
WAIT = 60  # seconds that processes wait for each other's writing

Dimension = Any  # optuna.distributions.BaseDistribution, of a package that may not be there


def choice(values: Sequence[str]) -> Dimension:
    """One of some values, as Hydra reads them."""
    from optuna.distributions import CategoricalDistribution

    return CategoricalDistribution(list(values))


def interval(low: float, high: float, log: bool = False) -> Dimension:
    """A number from `low` to `high`, both included; a whole one where both are whole numbers by type."""
    from optuna.distributions import FloatDistribution, IntDistribution

    if isinstance(low, int) and isinstance(high, int):
        return IntDistribution(low, high, log=log)
    return FloatDistribution(low, high, log=log)


def stepped(start: float, stop: float, step: float, log: bool = False) -> Dimension:
    """The numbers of Hydra's range, which ends before `stop`."""
    from optuna.distributions import FloatDistribution, IntDistribution

    count = max(1, math.ceil((stop - start) / step))
    last = start + (count - 1) * step
    if isinstance(start, int) and isinstance(last, int) and isinstance(step, int):
        return IntDistribution(start, last, log=log, step=1 if log else step)
    return FloatDistribution(start, last, log=log, step=None if log else step)


@dataclass(frozen=True)
class Trial:
    """One point of the search.

    Args:
        number: Optuna's.
        overrides: keys and values, as Hydra reads them.
        values: what it came to, in the order of the metrics; empty before it ended.
        said: it in one line.
    """

    number: int
    overrides: Mapping[str, str]
    values: tuple[float, ...] = ()
    said: str = ""

    @property
    def name(self) -> str:
        """Of its job's directory."""
        return f"trial_{self.number:04d}"


@dataclass(frozen=True)
class Study:
    """A study and how it is searched; plain data, so that jobs in other processes can tell of their epochs.

    Args:
        metrics: what is optimized, such as `validation/elbo`: a split and a number of its metrics, or a number of the
            summary's own.
        directions: `maximize` or `minimize`, for each.
        space: where keys take their values.
        n_trials: in all.
        sampler, pruner: one of `SAMPLERS`, of `PRUNERS`.
        warmup, epochs: no trial is pruned before so many epochs; how many there are.
        seed: of the sampler.
        storage: a database's address; None before it is opened without one.
        name: of the study in it.
        shared: whether others may use it too.
        folder: the directory of the sweep that searches it.
    """

    metrics: tuple[str, ...]
    directions: tuple[str, ...]
    space: Mapping[str, Dimension]
    n_trials: int
    sampler: str
    pruner: str
    warmup: int
    epochs: int
    seed: int
    storage: str | None
    name: str
    shared: bool
    folder: str = ""

    def open(self, folder: Path, line: Sequence[str]) -> Study:
        """The study with its storage, by default a file in a sweep's directory, made if need be.

        Args:
            folder: the sweep's directory.
            line: the overrides it is searched with.

        Raises:
            ConfigError: if it cannot be opened, or was begun with other overrides.
        """
        opened = replace(self, storage=self.storage or f"sqlite:///{folder / 'study.db'}", folder=str(folder))
        study, begun = opened._begun(TRIES)
        line = sorted([*line, *(f"optimize={metric}" for metric in self.metrics)])
        if begun is None or not any(trial.state.name == "COMPLETE" for trial in study.get_trials(deepcopy=False)):
            study.set_user_attr("overrides", line)
        elif begun != line:
            where = without_passwords(str(opened.storage))
            other = "hydra.sweeper.study_name" if self.shared else "sweep"
            with_what = f"was begun with {' '.join(begun)}; search on with the same, or choose another {other}="
            raise ConfigError(f"the study in {where} {with_what}")
        return opened

    def _begun(self, tries: int) -> tuple[optuna.Study, Any]:
        """The study, and what it was begun with. Where two processes make the tables at the same time, one fails."""
        try:
            study = self._made()
            return study, study.user_attrs.get("overrides")
        except Exception as error:
            if tries > 1:
                time.sleep(1)
                return self._begun(tries - 1)
            what = str(error).strip().splitlines() or [type(error).__name__]
            why = without_passwords(f"hydra.sweeper.storage={self.storage} cannot be used: {what[0]}")
            raise ConfigError(why) from error

    def _made(self) -> optuna.Study:
        optuna = _optuna()
        return optuna.create_study(
            storage=_storage(self.storage),
            study_name=self.name,
            directions=list(self.directions),
            load_if_exists=True,
        )

    def _loaded(self) -> optuna.Study:
        return _optuna().load_study(study_name=self.name, storage=_storage(self.storage), pruner=self._pruner())

    def _pruner(self) -> optuna.pruners.BasePruner:
        pruners = _optuna().pruners
        if self.pruner == "median":
            return pruners.MedianPruner(n_warmup_steps=self.warmup)
        if self.pruner == "hyperband":
            return pruners.HyperbandPruner(min_resource=self.warmup, max_resource=max(self.epochs, self.warmup))
        return pruners.NopPruner()

    def ask(self, most: int) -> list[Trial]:
        """New trials, at most so many, as long as all together are fewer than `n_trials`."""
        from optuna.trial import TrialState

        study, found = self._loaded(), []
        for _ in range(most):
            before = study.get_trials(deepcopy=False)
            waiting = any(trial.state == TrialState.WAITING for trial in before)
            if not waiting and sum(map(_counts, before)) >= self._most():
                break
            study.sampler = _sampler(self.sampler, _mixed(self.seed, len(before)), self.space)
            asked = study.ask(dict(self.space))
            asked.set_user_attr("sweep", self.folder)
            if self.shared and self._is_surplus(study, asked.number):
                asked.set_user_attr("surplus", True)
                study.tell(asked, state=TrialState.FAIL)
                break
            found.append(Trial(asked.number, _overrides(asked.params)))
        return found

    def retry(self) -> None:
        """Let the failed trials' settings be asked for again, beside as many trials as there were to be."""
        study = self._loaded()
        trials = study.get_trials(deepcopy=False)
        done = [trial.params for trial in trials if trial.state.name != "FAIL"]
        for trial in trials:
            if trial.state.name == "FAIL" and "surplus" not in trial.user_attrs and trial.params not in done:
                done.append(trial.params)
                study.enqueue_trial(trial.params, user_attrs={"again": trial.number})

    def _most(self) -> int:
        if self.sampler != "grid":
            return self.n_trials
        return min(self.n_trials, math.prod(map(len, _grid(self.space).values())))

    def _is_surplus(self, study: optuna.Study, number: int) -> bool:
        """Whether another process asked for the last trial at the same time."""
        trials = study.get_trials(deepcopy=False)
        mine = next(trial for trial in trials if trial.number == number)
        return _counts(mine) and sum(_counts(trial) for trial in trials if trial.number < number) >= self._most()

    def tell(self, jobs: Sequence[Job]) -> None:
        """What came of trials whose jobs have ended; an interrupted one stays open for the next start."""
        from optuna.trial import TrialState

        study = self._loaded()
        for job in jobs:
            state = State(job.path)
            known = [value(state.run, metric) for metric in self.metrics]
            values = [found for found in known if found is not None]
            if state.status not in ("completed", "pruned", "failed"):
                continue
            with suppress(RuntimeError):  # the grid's last point asks for the end of a loop that is not Optuna's
                if state.status == "pruned":
                    study.tell(job.more["trial"], state=TrialState.PRUNED)
                elif state.status == "failed" or len(values) < len(known):
                    study.tell(job.more["trial"], state=TrialState.FAIL)
                    self._check_known(state, known)
                else:
                    study.tell(job.more["trial"], values)

    def _check_known(self, state: State, found: Sequence[float | None]) -> None:
        """Refuse to search on for a number that a completed training does not have.

        Raises:
            ConfigError: naming it and those that there are.
        """
        for metric, number in zip(self.metrics, found):
            split, _, name = metric.rpartition("/")
            there = [line for line in state.run.metrics if line["split"] == split]
            if state.status == "completed" and number is None and there and name not in there[-1]:
                known = [
                    key for key, each in there[-1].items() if finite(each) is not None and key not in ("epoch", "step")
                ]
                near = get_close_matches(name, known, n=1)
                hint = f"did you mean {split}/{near[0]}?" if near else f"it has {', '.join(known)}"
                raise ConfigError(f"optimize={metric}: a training has no such number; {hint}")

    def unfinished(self) -> list[Trial]:
        """The trials asked for in this sweep that have not been told yet."""
        from optuna.trial import TrialState

        trials = self._loaded().get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        mine = [each for each in trials if not self.shared or each.user_attrs.get("sweep") == self.folder]
        return [Trial(each.number, _overrides(each.params)) for each in mine if self._is_inside(each)]

    def _is_inside(self, trial: optuna.trial.FrozenTrial) -> bool:
        """Whether a trial, which anybody may have written into the study, is one of this search's space."""
        if trial.params.keys() != self.space.keys():
            return False
        try:
            inside = {key: where.to_internal_repr(trial.params[key]) for key, where in self.space.items()}
            return all(self.space[key]._contains(number) for key, number in inside.items())
        except (ValueError, TypeError):
            return False

    def best(self) -> list[Trial]:
        """The best trial; of several metrics all that no other one beats in each."""
        study = self._loaded()
        return [
            Trial(
                trial.number,
                _overrides(trial.params),
                tuple(trial.values),
                self._said(trial.number, trial.values, trial.params),
            )
            for trial in study.best_trials[: None if len(self.metrics) > 1 else 1]
            if self._is_inside(trial)
        ]

    def _said(self, number: int, values: Sequence[float], params: Mapping[str, Any]) -> str:
        numbers = ", ".join(f"{metric} {_shown(found)}" for metric, found in zip(self.metrics, values))
        return f"trial {number}: {numbers}; {' '.join(f'{key}={found}' for key, found in _overrides(params).items())}"

    @contextmanager
    def listening(self, job: Job, epochs: int) -> Iterator[None]:
        """Tell the study of the epochs of a job that is trained inside, and end it early if it is to be pruned."""
        if self.pruner == "none" or "trial" not in job.more:
            yield
            return
        optuna, study = _optuna(), self._loaded()
        trial = optuna.trial.Trial(study, study.trials[job.more["trial"]]._trial_id)
        split, _, name = self.metrics[0].rpartition("/")
        if trial.user_attrs.get("pruned"):  # before its process was killed
            signals.request_stop(signal.SIGTERM, PRUNING)

        def listen(epoch: int, of: str, values: Mapping[str, float]) -> None:
            if of == split and finite(values.get(name)) is not None:
                trial.report(float(values[name]), epoch)
                if epoch < epochs and trial.should_prune():
                    trial.set_user_attr("pruned", True)
                    signals.request_stop(signal.SIGTERM, PRUNING)

        with heard_by(listen):
            yield

    def prunes(self, job: Job) -> bool:
        """Whether a job was ended because its trial is pruned."""
        if self.pruner == "none" or "trial" not in job.more:
            return False
        return bool(self._loaded().trials[job.more["trial"]].user_attrs.get("pruned"))


def plan(settings: Mapping[str, Any], metrics: Sequence[str], space: Mapping[str, Dimension], epochs: int) -> Study:
    """The study that `hydra.sweeper.*` describes.

    Args:
        settings: those keys.
        metrics: what is optimized.
        space: where keys take their values.
        epochs: of a trial.

    Raises:
        ConfigError: naming what is wrong or does not go together.
    """
    _check(settings, metrics)
    if not space:
        raise ConfigError(
            "a search needs keys with several values, such as latent_dim=2,8 optimizer.lr=interval(1e-4,1e-2)"
        )
    if settings["sampler"] == "grid":
        _grid(space)
    study = Study(
        metrics=tuple(metrics),
        directions=_directions(settings["direction"], metrics),
        space=dict(space),
        n_trials=settings["n_trials"],
        sampler=settings["sampler"],
        pruner=settings["pruner"],
        warmup=max(1, epochs // 5 if settings["pruner_warmup"] is None else settings["pruner_warmup"]),
        epochs=epochs,
        seed=settings["seed"],
        storage=settings["storage"],
        name=settings["study_name"] or "vae_cli",
        shared=settings["storage"] is not None,
    )
    _sampler(study.sampler, 0, space)
    return study


def _counts(trial: optuna.trial.FrozenTrial) -> bool:
    """Whether a trial is one of those that were to be: neither one too many nor another one's repetition."""
    return not {"surplus", "again"} & trial.user_attrs.keys()


def _check(settings: Mapping[str, Any], metrics: Sequence[str]) -> None:
    for metric in metrics:
        _check_metric(metric)
    if settings["sampler"] == "cmaes" and len(metrics) > 1:
        raise ConfigError("hydra.sweeper.sampler=cmaes optimizes one number; for several choose nsga2 or tpe")
    for key, known in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
        if settings[key] not in known:
            raise ConfigError(f"hydra.sweeper.{key}={settings[key]}: it is one of {', '.join(known)}")
    for key, least in (("n_trials", 1), ("n_jobs", 1), ("seed", 0)):
        number = settings[key]
        if not isinstance(number, int) or isinstance(number, bool) or number < least:
            raise ConfigError(f"hydra.sweeper.{key}={number}: it is an integer of at least {least}")
    warmup = settings["pruner_warmup"]
    if warmup is not None and (not isinstance(warmup, int) or isinstance(warmup, bool) or warmup < 1):
        raise ConfigError(f"hydra.sweeper.pruner_warmup={warmup}: it is null or epochs, an integer of at least 1")
    if settings["pruner"] != "none" and len(metrics) > 1:
        raise ConfigError("hydra.sweeper.pruner: trials with several numbers to optimize are not pruned; choose none")
    if settings["pruner"] != "none" and metrics[0].partition("/")[0] not in ("train", "validation"):
        raise ConfigError(
            f"hydra.sweeper.pruner needs a number of each epoch, optimize=validation/elbo; not {metrics[0]}"
        )
    if settings["storage"] is not None and not settings["study_name"]:
        raise ConfigError("hydra.sweeper.storage: name the study in it with hydra.sweeper.study_name=NAME")


def _check_metric(metric: str) -> None:
    split, _, name = metric.rpartition("/")
    if split == "test" or (not split and name in TEST_METRICS):
        raise ConfigError(f"optimize={metric}: the test split is for the end; write optimize=validation/{name}")
    if not name or (split not in ("train", "validation") if split else name not in BARE):
        raise ConfigError(f"optimize={metric}: write validation/NAME, train/NAME or one of {', '.join(BARE)}")


def _directions(given: Any, metrics: Sequence[str]) -> tuple[str, ...]:
    if given is None:
        return tuple(DIRECTIONS[metric.rpartition("/")[2] not in LARGER_IS_BETTER] for metric in metrics)
    found = tuple(given) if isinstance(given, (list, tuple)) else (given,) * len(metrics)
    if len(found) != len(metrics) or any(direction not in DIRECTIONS for direction in found):
        raise ConfigError(
            f"hydra.sweeper.direction={given}: maximize or minimize, one for each of {', '.join(metrics)}"
        )
    return found


def value(run: Run, metric: str) -> float | None:
    """A run's number by its name: `validation/elbo` of the best epoch, `test/kl`, `train/loss` of the last epoch, or
    `seconds`, `parameters` and the like."""
    split, _, name = metric.rpartition("/")
    if split == "train":
        found = [line for line in run.metrics if line["split"] == "train"]
        return finite(found[-1].get(name)) if found else None
    return finite(mapping(run.summary.get(split)).get(name)) if split else run.number(name)


def _mixed(seed: int, place: int) -> int:
    """A sampler's seed for one trial, so that a search taken up again asks what it would have asked."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{place}".encode()).digest()[:4], "little")


def _shown(number: float) -> str:
    return f"{number:,.0f}" if number == int(number) else f"{number:,.4f}"


def _overrides(params: Mapping[str, Any]) -> dict[str, str]:
    """Keys and their values as Hydra reads them."""
    return {key: found if isinstance(found, str) else repr(found) for key, found in params.items()}


def _grid(space: Mapping[str, Dimension]) -> dict[str, list[Any]]:
    """All values of each key.

    Raises:
        ConfigError: for a key without an end of them.
    """
    from optuna.distributions import CategoricalDistribution

    found: dict[str, list[Any]] = {}
    for key, where in space.items():
        if isinstance(where, CategoricalDistribution):
            found[key] = list(where.choices)
        elif where.step is None or where.log:
            raise ConfigError(f"{key}: a grid needs values that can be counted, such as 1,2,3 or range(1,9,2)")
        else:
            count = round((where.high - where.low) / where.step) + 1
            found[key] = [where.low + where.step * index for index in range(min(count, LARGEST_GRID))]
    return found


def _sampler(name: str, seed: int, space: Mapping[str, Dimension]) -> optuna.samplers.BaseSampler:
    samplers = _optuna().samplers
    if name == "grid":
        return samplers.GridSampler(_grid(space), seed=0)  # which goes through the grid in an order of its own
    if name == "cmaes":
        try:
            import cmaes  # noqa: F401
        except ImportError as error:
            raise ConfigError("hydra.sweeper.sampler=cmaes needs cmaes: pip install 'vae-cli[sweep]'") from error
        return _careful_cmaes()(seed=seed, warn_independent_sampling=False)
    return {"tpe": samplers.TPESampler, "random": samplers.RandomSampler, "nsga2": samplers.NSGAIISampler}[name](
        seed=seed
    )


def _careful_cmaes() -> type[optuna.samplers.CmaEsSampler]:
    """Optuna's sampler, which keeps its state in the study as a pickle; this one lets that run nothing."""
    import io
    import pickle

    from vae_cli.data.sets.unpickle import ArrayUnpickler

    class Unpickler(ArrayUnpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) in STATE:
                return getattr(importlib.import_module(module), name)
            return super().find_class(module, name)

    class CmaEs(_optuna().samplers.CmaEsSampler):  # type: ignore[misc]
        def _restore_optimizer(self, completed_trials: list[optuna.trial.FrozenTrial]) -> Any:
            for trial in reversed(completed_trials):
                prefix = self._attr_key_optimizer
                if parts := {key: value for key, value in trial.system_attrs.items() if key.startswith(prefix)}:
                    try:
                        return Unpickler(io.BytesIO(bytes.fromhex(self._concat_optimizer_attrs(parts)))).load()
                    except (pickle.UnpicklingError, ValueError, KeyError) as error:
                        raise ConfigError(f"the study's state of cmaes is not one: {error}; search anew") from error
            return None

    return CmaEs


def _storage(address: str | None) -> Any:
    """A storage in which several processes wait for each other instead of failing."""
    assert address is not None
    waiting = {"connect_args": {"timeout": WAIT}} if address.startswith("sqlite") else {"pool_pre_ping": True}
    return _optuna().storages.RDBStorage(address, engine_kwargs=waiting)


def _optuna() -> Any:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def write_preset(folder: Path, trial: Trial, text: str, name: str) -> None:
    """Write a trial's settings as a preset that `--config-dir` of the sweep's directory offers."""
    write(folder / "experiment" / f"{name}.yaml", f"# @package _global_\n# {trial.said}\n{text}")
