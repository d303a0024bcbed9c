"""What a sweep adds to its jobs: going on where an earlier start of it ended, ending together, and one table.

`GridSweeper` and `OptunaSweeper` are Hydra's plugins; `Task` is what its launchers run, wherever that is. What they
share lies in the sweep's directory: a job.json in every job's own, and files that say that the sweep is alive or is
to stop.
"""

from __future__ import annotations

import os
import secrets
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from vae_cli.config import options, overrides, validation
from vae_cli.errors import CheckpointError, ConfigError, DirectoryInUse, UserError, describe
from vae_cli.runs.reader import Run
from vae_cli.sweeps import jobs, study
from vae_cli.sweeps.jobs import Job, State
from vae_cli.sweeps.starts import POLL, Start, on_a_disk_with_room, telling, watching
from vae_cli.system import threads
from vae_cli.system.locks import file_lock, is_locked
from vae_cli.training import signals

_started_here: set[str] = set()  # tokens of starts

Arguments = tuple[dict[str, Any], Path, frozenset[str], str]

TRIES = 3  # of a launcher in a row that brings no job to an end
ORPHANED = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Task:
    """What Hydra runs for every job: trains, goes on with what was begun, or leaves alone what is done.

    Args:
        arguments: from Hydra's config to what the job takes.
        job: trains one model.
        guard: prints what a job raises and turns it into an exit status.
        command: which of the commands it is.
        typed: the line that started the sweep.
        start: of the sweep; None under a sweeper that knows nothing of it.
        bound: whether jobs end when that process has died.
        threads: of the CPU, for each job.
        quiet: whether jobs run beside each other and leave their lines to train.log.
        fail_fast: whether a failure ends the sweep.
        study: what a trial tells of its epochs.
    """

    arguments: Callable[[DictConfig], Arguments]
    job: Callable[[dict[str, Any], Path, frozenset[str], str], int]
    guard: Callable[[Callable[[], int]], int]
    command: str
    typed: str
    start: Start | None = None
    bound: bool = False
    threads: int | None = None
    quiet: bool = False
    fail_fast: bool = False
    study: study.Study | None = None

    def __call__(self, config: DictConfig) -> int:
        hydra = HydraConfig.get()
        path = Path(hydra.runtime.output_dir)
        job = jobs.read_job(path) or Job(hydra.job.num, tuple(hydra.overrides.task), path)
        _number(job.number)
        here = self.start is not None and self.start.token in _started_here
        if not here and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep's process tells when to stop
        if self.start is None:
            return self.guard(partial(self._attempt, job, config))
        with file_lock(path / jobs.LOCK) as mine:
            status = self._at_work(job, config, here) if mine else 0
        if self.bound and not here and not is_locked(self.start.alive):
            os._exit(ORPHANED)  # nobody waits for this process any more
        return status

    def _at_work(self, job: Job, config: DictConfig, here: bool) -> int:
        """Run a job that no other process is at, unless it is done or the sweep is over."""
        assert self.start is not None
        if self.start.is_over(self.bound) or State(job.path).run.status in ("completed", "running"):
            return 0
        if not self.quiet:
            print(job.title, flush=True)
        status = self._run(job, config)
        if status > 128 and not self.start.is_over(self.bound):
            _back_into_the_queue()
        return self._told(job, status, here)

    def _run(self, job: Job, config: DictConfig) -> int:
        assert self.start is not None
        with on_a_disk_with_room():
            job.write(begun_in=self.start.token)
            (job.path / "summary.json").unlink(missing_ok=True)  # of an earlier attempt
        with watching(partial(self.start.is_over, self.bound)):
            return self.guard(partial(self._attempt, job, config))

    def _told(self, job: Job, status: int, here: bool) -> int:
        """Keep how a job ended, and end the sweep if that is what it means."""
        assert self.start is not None
        if Run(job.path, job.path.name).status == "running":  # a training that no sweep has begun
            return 0
        if not (job.path / "summary.json").exists():
            with on_a_disk_with_room():
                jobs.note(job.path, "failed" if 0 < status < 128 else "interrupted" if status else "completed")
        failed = Run(job.path, job.path.name).status == "failed"
        pruned = self.study is not None and self.study.prunes(job)
        with on_a_disk_with_room():
            more = {"pruned": True} if pruned else {}
            job.write(begun_in=self.start.token, ended_in=self.start.token, **more)
            jobs.write_tables(self.start.path)
        if failed and self.fail_fast:
            self.start.stop.touch()
        if status > 128 and here and not pruned and not self.start.stop.exists():
            signal.raise_signal(status - 128)  # which the training has kept to itself
        return 0 if pruned else status

    def _attempt(self, job: Job, config: DictConfig) -> int:
        """Run the job, leaving word of what goes wrong before a training could."""
        try:
            plain, directory, given, typed = self.arguments(config)
            plain = _trusting(plain, given)
            threads.use_threads(plain["threads"] or self.threads or threads.allotted())
            with ExitStack() as stack:
                if self.quiet:
                    sink = stack.enter_context(Path(os.devnull).open("w"))
                    stack.enter_context(redirect_stdout(sink))
                    stack.enter_context(redirect_stderr(sink))
                stack.enter_context(threads.own_gpu(plain["device"], job.number))
                if self.study is not None:
                    stack.enter_context(self.study.listening(job, plain["epochs"]))
                return self._train(plain, directory, given, typed)
        except DirectoryInUse:
            return 0
        except Exception as error:
            _leave_word(job.path, error)
            if isinstance(error, UserError):
                raise type(error)(f"{job.title}: {error}") from error
            raise

    def _train(self, plain: dict[str, Any], directory: Path, given: frozenset[str], typed: str) -> int:
        """Go on from the newest checkpoint in the job's directory, or begin where there is none that opens."""
        if self.start is not None and any((directory / "checkpoints").glob("*.pt")):
            changes = frozenset(key for key in given if key.partition(".")[0] in (*validation.MAY_CHANGE, "allow"))
            try:
                return self.job(plain | {"resume": str(directory)}, directory, changes, typed)
            except CheckpointError as error:
                print(f"begun anew: {error}", file=sys.stderr, flush=True)
                _set_aside(directory)
        return self.job(plain, directory, given, typed)


def _trusting(plain: dict[str, Any], given: frozenset[str]) -> dict[str, Any]:
    """The settings, which trust the package of a class that was typed: the job's checkpoint names it too."""
    typed = [str(plain[group]["_target_"]) for group, _, key in (k.partition(".") for k in given) if key == "_target_"]
    foreign = {target.partition(".")[0] for target in typed} - {"vae_cli", "torch"}
    return plain | {"allow": foreign.pop()} if plain["allow"] is None and len(foreign) == 1 else plain


def _number(number: int) -> None:
    """Let `${hydra:job.num}` be the job's number, whichever jobs a launcher was given with it."""
    config: Any = HydraConfig.instance().cfg
    with read_write(config.hydra.job), open_dict(config.hydra.job):
        config.hydra.job.num = number


def _back_into_the_queue() -> None:
    """Let submitit put this job back into Slurm's queue, after a preemption or the time limit; it ends the process."""
    for number in (signal.SIGUSR2, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ else ():
        if callable(signal.getsignal(number)):
            signal.raise_signal(number)


def _leave_word(path: Path, error: Exception) -> None:
    """Write why a job failed where its training has not."""
    if not (path / "summary.json").exists():
        why = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {describe(error)}"
        with suppress(OSError):
            jobs.fail(path, why)


def _set_aside(path: Path) -> None:
    """Make room for a training that is begun anew, without losing what may be read one day."""
    for left in (*path.glob("checkpoints/*.pt"), path / "metrics.jsonl"):
        if left.exists():
            left.replace(left.with_name(f"{left.name}.set_aside"))


def _knock(address: str) -> None:
    """See that somebody answers at HOST:PORT; Ray itself would wait very long.

    Raises:
        OSError: if nobody does.
    """
    host, colon, port = address.rpartition(":")
    if colon and port.isdigit() and "://" not in host:
        socket.create_connection((host, int(port)), timeout=10).close()


def _connect_to_ray(options: DictConfig) -> None:
    """Be on the cluster before the launcher is, which then stays on it.

    Raises:
        ConfigError: if there is none.
    """
    import ray

    arguments = OmegaConf.to_container(options)
    assert isinstance(arguments, dict)
    try:
        _knock(str(arguments.get("address")))
        ray.init(**{str(key): value for key, value in arguments.items()}, ignore_reinit_error=True)
    except Exception as error:
        address = arguments.get("address")
        raise ConfigError(
            f"hydra.launcher.ray.init.address={address}: no Ray cluster there ({describe(error)})"
        ) from error


class _Sweeper(Sweeper):
    """What every sweep does with its jobs."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Task)
        self.context, self.settings, self.task = hydra_context, config, task_function
        self.signal: int | None = None

    def sweep(self, arguments: list[str]) -> int:
        """Run the jobs that are left to run; the exit status of the sweep."""
        parsed = OverridesParser.create(self.context.config_loader).parse_overrides(arguments)
        self._check(parsed)
        path = Path(self.settings.hydra.sweep.dir).absolute()
        self.start = Start(path, secrets.token_hex(4))
        _started_here.add(self.start.token)
        with file_lock(self.start.alive), self._listening():
            try:
                self._begin()
                done = self._sweep(parsed)
                self.start.stop.unlink(missing_ok=True)  # else jobs that wait in a queue have yet to see it
            finally:
                self.start.alive.unlink(missing_ok=True)
                with on_a_disk_with_room():
                    jobs.write_tables(path)
        status = self._sum_up(done)
        self._conclude()
        return status

    def _conclude(self) -> None:
        """Say what comes after the table."""

    def _check(self, parsed: list[Override]) -> None:
        """Refuse what this kind of sweep cannot do, before anything is made."""

    def _sweep(self, parsed: list[Override]) -> list[Job]:
        raise NotImplementedError

    def _begin(self) -> None:
        for left in self.start.path.glob(".alive-*"):  # of starts that were killed
            if left != self.start.alive and not is_locked(left):
                left.unlink(missing_ok=True)
        for left in self.start.path.glob(".stop-*"):
            if not (self.start.path / left.name.replace("stop", "alive")).exists():
                left.unlink(missing_ok=True)
        with (self.start.path / "command.txt").open("a", encoding="utf-8") as file:
            file.write(" ".join(self.task.typed.splitlines()) + "\n")

    @contextmanager
    def _listening(self) -> Iterator[None]:
        """Let SIGINT and SIGTERM end the jobs first."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = self._listen()
        try:
            if self._kind == "RayLauncher":
                _connect_to_ray(self.settings.hydra.launcher.ray.init)
                self._listen()  # since Ray has put its own handlers in place
            yield
        finally:
            signals.request_stop(None)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _listen(self) -> dict[int, Any]:
        return {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = number
            self.start.stop.touch()
            signals.request_stop(number)
            print("the sweep stops: its jobs save themselves; Ctrl-C again ends them at once", file=sys.stderr)

    @property
    def _stopped(self) -> bool:
        return self.start.stop.exists()

    @cached_property
    def _at_once(self) -> int | None:
        """How many jobs the launcher runs beside each other on this machine; None where it is not ours to say."""
        launcher = self.settings.hydra.launcher
        if self._kind == "JoblibLauncher":
            count = launcher.n_jobs or 1
            return max(1, count if count > 0 else threads.cores() + 1 + count)
        if self._kind == "LocalLauncher":
            return max(1, threads.cores() // (launcher.cpus_per_task or 1))
        return 1 if self._kind == "BasicLauncher" else None

    @property
    def _kind(self) -> str:
        """The launcher's class."""
        return str(self.settings.hydra.launcher._target_).rpartition(".")[2]

    @property
    def _is_here(self) -> bool:
        """Whether jobs run in this very process, one after the other, and speak for themselves."""
        return self._kind == "BasicLauncher" or (self._kind == "JoblibLauncher" and self._at_once == 1)

    def _launcher(self, count: int) -> Launcher:
        """The launcher of so many jobs, told how they share this machine."""
        at_once = None if self._at_once is None else min(self._at_once, max(1, count))
        share = None
        if at_once not in (None, 1) and "OMP_NUM_THREADS" not in os.environ:
            share = max(1, threads.cores() // at_once)
        task = replace(
            self.task,
            start=self.start,
            bound=at_once is not None and is_locked(self.start.alive),
            threads=share,
            quiet=not self._is_here,
            fail_fast=self.settings.fail_fast,
        )
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task, config=self.settings
        )
        assert isinstance(launcher, Launcher)
        return launcher

    def _run(self, wanted: Sequence[Job], at_once: int | None = None) -> None:
        """Launch jobs until each has ended in this start or was done before; wait for those that other processes have.

        A job whose process dies is taken up again, but not for ever unless others get on.
        """
        launcher = self._launcher(at_once or len(wanted))
        stuck: list[Job] = []
        fruitless = 0
        while not self._stopped:
            left = [job for job in self._waiting(wanted) if job not in stuck]
            for job in [job for job in left if not self._is_legal(job)]:
                left.remove(job)
            if left and not self._stopped:
                with nullcontext() if self._is_here else telling(left, self.start.token):
                    why = self._launch(launcher, left)
                if why and not any(State(job.path).begun_in(self.start.token) for job in left):
                    chosen = self.settings.hydra.runtime.choices["hydra/launcher"]
                    raise ConfigError(f"hydra/launcher={chosen} could begin none of the jobs: {why}")
                after = [job for job in self._waiting(left) if not self._stopped]
                fruitless = fruitless + 1 if len(after) == len(left) else 0
                if fruitless == TRIES:
                    stuck += [job for job in after if self._fail(job, why or "its process ended without a word")]
            elif any(State(job.path).status == "running" for job in wanted):
                time.sleep(POLL)
            else:
                return

    def _waiting(self, wanted: Sequence[Job]) -> list[Job]:
        return jobs.waiting(wanted, self.start.token, self.settings.retry_failed)

    def _launch(self, launcher: Launcher, left: Sequence[Job]) -> str | None:
        """Hand jobs to the launcher; what went wrong with itself."""
        size = len(left)
        if self._kind == "LocalLauncher":  # which begins all that it is given
            size = self._at_once or 1
        try:
            for first in range(0, len(left), size):
                batch = [
                    [*job.overrides, f"hydra.sweep.subdir='{job.path.name}'"] for job in left[first : first + size]
                ]
                launcher.launch(batch, initial_job_idx=first)
        except Exception as error:
            return f"{type(error).__name__}: {describe(error)}"
        return None

    def _is_legal(self, job: Job) -> bool:
        """Whether the job's settings go together; where they do not, it has failed.

        Without a choice of its own it composes as the line did, and its values are judged when it runs.
        """
        if not {*job.more.get("swept", ())} & {*options.groups(self.task.command)}:
            return True
        loader, texts = self.context.config_loader, list(job.overrides)
        try:
            loader.load_sweep_config(self.settings, texts)
        except Exception as error:
            what = str(error) if isinstance(error, ConfigError) else self._explained(error, texts)
            return not self._fail(job, what)
        return True

    def _explained(self, error: Exception, texts: list[str]) -> str:
        loader = self.context.config_loader
        try:
            parsed = overrides.parse(texts)
            for override in parsed:
                overrides.check_choice(override, loader, self.task.command)
            return overrides.explain(error, texts, loader, self.task.command, self.settings.hydra.job.config_name)
        except ConfigError as found:
            return str(found)

    def _fail(self, job: Job, why: str) -> bool:
        with on_a_disk_with_room():
            jobs.fail(job.path, why)
            job.write(ended_in=self.start.token)
            jobs.write_tables(self.start.path)
        print(f"vae-{self.task.command}: error: {job.title}: {why}", file=sys.stderr, flush=True)
        if self.settings.fail_fast:
            self.start.stop.touch()
        return True

    def _sum_up(self, done: Sequence[Job]) -> int:
        """Print the table; 128 + signal after a signal, 1 unless every job is done, else 0."""
        states = [State(job.path) for job in done]
        rows = [state.row() | {"overrides": job.shown} | self._numbers(state) for job, state in zip(done, states)]
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        counts = [f"{n} {status}" for status in jobs.STATUSES if (n := sum(row["status"] == status for row in rows))]
        print(f"\n{jobs.table(rows, list(self._numbers(None)), width)}\n")
        print(f"{', '.join(counts)}; {self.start.path / jobs.CSV}")
        found = {row["status"] for row in rows}
        if found & {"interrupted", "pending", "unfinished"}:
            print("the same command goes on with what is not completed")
        if "failed" in found and not self.settings.retry_failed:
            print("the same command with retry_failed=true runs the failed ones again")
        sys.stdout.flush()
        if self.signal is not None:
            return 128 + self.signal
        if found & {"failed", "unfinished", "pending"}:
            return 1
        return 143 if found & {"interrupted", "running"} else 0

    def _numbers(self, state: State | None) -> dict[str, float | None]:
        """Further numbers for a job's row of the table; their names without one."""
        return {}


class GridSweeper(_Sweeper):
    """Every combination of the values."""

    def _check(self, parsed: list[Override]) -> None:
        overrides.combinations(parsed, self.context.config_loader)

    def _sweep(self, parsed: list[Override]) -> list[Job]:
        wanted = overrides.combinations(parsed, self.context.config_loader)
        values: dict[str, set[str]] = {}
        for text in (text for job in wanted for text in job):
            values.setdefault(jobs.key(text), set()).add(text)
        swept = [key for key, found in values.items() if len(found) > 1]
        found = jobs.assign(self.start.path, wanted, swept)
        self._run(found)
        return found


class OptunaSweeper(_Sweeper):
    """A search by Optuna, whose trials are jobs."""

    def __init__(self, **options: Any) -> None:
        self.options = options

    def _check(self, parsed: list[Override]) -> None:
        parsed = overrides.of_jobs(parsed)
        wanted = self.settings.optimize
        metrics = list(wanted) if OmegaConf.is_list(wanted) else [wanted]
        values = {o.get_key_element(): _values(o) for o in parsed}
        searched = [o for o in parsed if o.is_sweep_override() and len(values[o.get_key_element()]) != 1]
        space = {o.get_key_element(): _dimension(o) for o in searched}
        self.fixed = [
            f"{key}={values[key][0]}" if override.is_sweep_override() else str(override.input_line)
            for override in parsed
            if (key := override.get_key_element()) not in space
        ]
        for key, (low, high) in {o.get_key_element(): _ends(o) for o in searched if o.is_interval_sweep()}.items():
            inside = low + (high - low) / 3
            if (
                isinstance(low, float)
                and not validation.is_accepted(key, inside)
                and validation.is_accepted(key, int(inside))
            ):
                raise ConfigError(f"{key}: it takes whole numbers, search {key}=int(interval({low:g},{high:g}))")
        self.plan = study.plan(self.options, metrics, space, self.settings.epochs)
        if self.options["n_jobs"] > 1 and self._is_here:
            raise ConfigError("hydra.sweeper.n_jobs: for trials beside each other add a launcher, hydra/launcher=cores")
        if self.settings.dataset.get("validation") == 0 and any(m.startswith("validation/") for m in metrics):
            raise ConfigError("optimize=validation/…: dataset.validation=0 holds no images out to validate on")

    def _sweep(self, parsed: list[Override]) -> list[Job]:
        line = [str(o.input_line) for o in overrides.of_jobs(parsed) if jobs.matters(o.key_or_group)]
        with self._asking():
            self.study = self.plan.open(self.start.path, line)
        self.task = replace(self.task, study=self.study)
        self._take_up()
        if self.settings.retry_failed:
            self.study.retry()
        while not self._stopped and (asked := self._ask()):
            self._run(asked, self.options["n_jobs"])
            self.study.tell(asked)
        mine = [job for job in jobs.of_sweep(self.start.path) if "trial" in job.more]
        while not self._stopped and any(State(job.path).status == "running" for job in mine):
            time.sleep(POLL)  # for what another start of the same sweep trains
        return mine

    @contextmanager
    def _asking(self) -> Iterator[None]:
        """No other start of the sweep asks the study meanwhile."""
        with file_lock(self.start.path / ".asking", wait=True):
            yield

    def _numbers(self, state: State | None) -> dict[str, float | None]:
        return {m: None if state is None else study.value(state.run, m) for m in self.plan.metrics if m != "seconds"}

    def _take_up(self) -> None:
        """Finish the trials that a killed start of this sweep has left."""
        with self._asking():
            left = [self._job(trial) for trial in self.study.unfinished() if self._is_orphan(trial)]
        for first in range(0, len(left), self.options["n_jobs"]):
            batch = left[first : first + self.options["n_jobs"]]
            self._run(batch, self.options["n_jobs"])
            self.study.tell(batch)

    def _is_orphan(self, trial: study.Trial) -> bool:
        """Whether the start that asked for a trial has died, before it could make a job of it perhaps."""
        job = jobs.read_job(self.start.path / trial.name)
        return job is None or not is_locked(self.start.path / f".alive-{job.more.get('start')}")

    def _ask(self) -> list[Job]:
        with self._asking():
            return [self._job(trial) for trial in self.study.ask(self.options["n_jobs"])]

    def _texts(self, trial: study.Trial) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in trial.overrides.items())]

    def _job(self, trial: study.Trial) -> Job:
        """The job that a trial is: the line's own settings and the trial's."""
        texts = self._texts(trial)
        about = {"trial": trial.number, "start": self.start.token}
        return jobs.of_trial(self.start.path / trial.name, trial.number, texts, list(trial.overrides), **about)

    def _conclude(self) -> None:
        """Print the best trials and write them as presets."""
        best = self.study.best()
        for trial in best:
            name = "best" if len(self.plan.metrics) == 1 else f"best_{trial.number:04d}"
            chosen = overrides.parse(self._texts(trial))
            study.write_preset(self.start.path, trial, overrides.preset(chosen, self.task.command), name)
            print(f"best: {trial.said}")
            line = shlex.join([f"vae-{self.task.command}", "--config-dir", str(self.start.path), f"experiment={name}"])
            print(f"      {line}", flush=True)
        if not best:
            print("no trial was completed", flush=True)


def _values(override: Override) -> list[str]:
    """The values of an override as Hydra reads them; of an interval none."""
    if not override.is_sweep_override():
        return [override.get_value_element_as_str()]
    return list(override.sweep_string_iterator()) if override.is_discrete_sweep() else []


def _ends(override: Override) -> tuple[float, float]:
    value = override.value()
    assert isinstance(value, IntervalSweep) and value.start is not None and value.end is not None
    return value.start, value.end


def _dimension(override: Override) -> study.Dimension:
    """Where a search looks for a key's value."""
    value = override.value()
    log = "log" in getattr(value, "tags", ())
    try:
        return _distribution(override, value, log)
    except ValueError as error:
        raise ConfigError(f"{override.input_line}: {describe(error)}") from error


def _distribution(override: Override, value: Any, log: bool) -> study.Dimension:
    if isinstance(value, IntervalSweep):
        return study.interval(*_ends(override), log)
    if isinstance(value, RangeSweep) and not value.shuffle:
        assert value.start is not None and value.stop is not None
        return study.stepped(value.start, value.stop, value.step, log)
    return study.choice(list(override.sweep_string_iterator()))


def register() -> None:
    """Make the sweepers known to Hydra, which takes plugins by names of its own package alone."""
    for sweeper in (GridSweeper, OptunaSweeper):
        Plugins.instance().class_name_to_class[f"hydra_plugins.vae_cli.{sweeper.__name__}"] = sweeper
