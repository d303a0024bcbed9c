"""Hydra's sweepers: `grid` trains every combination, `optuna` searches. Hydra's launchers run the jobs."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from types import FrameType
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from vae_cli.build import options
from vae_cli.config import overrides
from vae_cli.errors import ConfigError, describe
from vae_cli.runs.reader import STATUSES
from vae_cli.sweeps import table
from vae_cli.sweeps.job import Job, assign_directories, has_effect, key_of, read_jobs, save_job
from vae_cli.sweeps.search_space import split_overrides
from vae_cli.sweeps.study import Trial, make_study, number_of
from vae_cli.sweeps.table import Column
from vae_cli.sweeps.task import POLL, STOP, Task
from vae_cli.system import streams, threads
from vae_cli.system.atomic import write_text
from vae_cli.system.locks import file_lock
from vae_cli.training.signals import hangup

ATTEMPTS = 3  # of a launcher at the jobs of a worker that died
NOT_ENDED = ("pending", "unfinished", "interrupted")


class JobSweeper(Sweeper):
    """A sweeper that runs the jobs that are left to run, and ends with a table of all."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        assert isinstance(task_function, Task)
        self.context, self.settings, self.task = hydra_context, config, task_function
        self.path = Path(config.hydra.sweep.dir).absolute()
        self.signal: int | None = None
        self.failed_before = 0  # jobs of an earlier start that this one leaves alone

    def sweep(self, arguments: list[str]) -> int:
        """Run the jobs of a command line and return the sweep's exit status.

        Raises:
            ConfigError: if this kind of sweep cannot be made of it, or another process is at it already.
        """
        parsed = overrides.of_jobs(OverridesParser.create(self.context.config_loader).parse_overrides(arguments))
        self.check(parsed)
        self.path.mkdir(parents=True, exist_ok=True)
        with file_lock(self.path / ".lock") as is_free:
            if not is_free:
                raise ConfigError(f"sweep={self.path} is being run by another process; let it end first")
            (self.path / STOP).unlink(missing_ok=True)
            with (self.path / "command.txt").open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(" ".join(self.task.command.splitlines()) + "\n")
            with self._handling_signals():
                jobs = self.run_all(parsed)
            (self.path / STOP).unlink(missing_ok=True)
            table.write_tables(self.path)
        self._print_table(jobs)
        return self._exit_status(jobs)

    def check(self, parsed: list[Override]) -> None:
        """Refuse what this kind of sweep cannot do, before anything is written."""

    def run_all(self, parsed: list[Override]) -> list[Job]:
        """Run all jobs of the sweep and return them."""
        raise NotImplementedError

    # Running jobs

    def run(self, jobs: Sequence[Job], at_once: int | None = None) -> None:
        """Run the jobs that are left to run, each to its end.

        A launcher fails where a worker dies, and takes along the jobs beside it: they are taken up again where they
        stood, so many times. Jobs that an earlier start has left running, as on Slurm, are waited for.
        """
        statuses = (*NOT_ENDED, "failed") if self.settings.retry_failed else NOT_ENDED
        self.failed_before = sum(job.status == "failed" and job.status not in statuses for job in jobs)
        for _ in range(ATTEMPTS):
            waiting = [job for job in jobs if job.status in statuses]
            failure = self._launch(waiting, at_once) if waiting else None
            while not self.is_stopped and any(job.status == "running" for job in jobs):
                time.sleep(POLL)
            if self.is_stopped or not any(job.status in NOT_ENDED for job in jobs):
                return
            statuses = NOT_ENDED
        launcher = self.settings.hydra.runtime.choices["hydra/launcher"]
        self._print_error(f"hydra/launcher={launcher}: {failure or 'jobs ended without a word'}")

    @property
    def is_stopped(self) -> bool:
        return (self.path / STOP).exists() or not streams.has_reader()

    def _launch(self, jobs: list[Job], at_once: int | None) -> str | None:
        """Hand jobs to the launcher. Return the reason if it fails, else None."""
        launcher = self._make_launcher(at_once or len(jobs))
        size = self._at_once if self._launcher_class == "LocalLauncher" else None  # it begins all that it is given
        jobs = [job for job in jobs if self._can_be_composed(job)]
        try:
            for first in range(0, len(jobs), size or max(1, len(jobs))):
                if self.is_stopped:
                    break
                batch = jobs[first : first + size] if size else jobs
                texts = [[*job.overrides, f"hydra.sweep.subdir='{job.path.name}'"] for job in batch]
                launcher.launch(texts, initial_job_idx=first)
        except Exception as error:
            return f"{type(error).__name__}: {describe(error)}"
        return None

    def _make_launcher(self, count: int) -> Launcher:
        """Return the launcher of so many jobs, which share this machine's cores where they run beside each other."""
        at_once = None if self._at_once is None else min(self._at_once, count)
        share = None
        if at_once not in (None, 1) and "OMP_NUM_THREADS" not in os.environ:
            share = max(1, threads.cores() // at_once)
        is_quiet = self._at_once != 1
        task = replace(self.task, threads=share, is_quiet=is_quiet, fail_fast=self.settings.fail_fast)
        launcher = Plugins.instance().instantiate_launcher(
            hydra_context=self.context, task_function=task, config=self.settings
        )
        assert isinstance(launcher, Launcher)
        return launcher

    @property
    def _launcher_class(self) -> str:
        return str(self.settings.hydra.launcher._target_).rpartition(".")[2]

    @cached_property
    def _at_once(self) -> int | None:
        """The number of jobs that the launcher runs beside each other on this machine; None for other machines."""
        launcher = self.settings.hydra.launcher
        if self._launcher_class == "JoblibLauncher":
            count = launcher.n_jobs or 1
            return max(1, count if count > 0 else threads.cores() + 1 + count)
        if self._launcher_class == "LocalLauncher":
            return max(1, threads.cores() // (launcher.cpus_per_task or 1))
        return 1 if self._launcher_class == "BasicLauncher" else None

    def _can_be_composed(self, job: Job) -> bool:
        """Return whether a job's choices of options go together; one whose do not fails, and leaves the others alone.

        Jobs without a choice of their own compose as the command line did. Their values are checked as they begin.
        """
        if not {*job.swept} & {*options.groups("train")}:
            return True
        loader, texts = self.context.config_loader, list(job.overrides)
        try:
            loader.load_sweep_config(self.settings, texts)
            return True
        except Exception as error:
            try:
                for override in overrides.parse(texts):
                    overrides.check_choice(override, loader, "train")
                message = overrides.explain(error, texts, loader, "train", self.settings.hydra.job.config_name)
            except ConfigError as mistake:
                message = str(mistake)
        job.write_summary("failed", message)
        table.write_tables(self.path)
        self._print_error(f"{job.title}: {message}")
        if self.settings.fail_fast:
            (self.path / STOP).touch()
        return False

    def _print_error(self, message: str) -> None:
        print(f"vae-train: error: {message}", file=sys.stderr, flush=True)

    # Signals

    @contextmanager
    def _handling_signals(self) -> Iterator[None]:
        """Let SIGINT, SIGTERM and SIGHUP end the jobs first, wherever they run."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGINT, signal.SIGTERM, *hangup())
        before = [signal.getsignal(number) for number in numbers]
        try:
            if self._launcher_class == "RayLauncher":
                connect_to_ray(self.settings.hydra.launcher.ray.init)  # which has handlers of its own
            for number in numbers:
                signal.signal(number, self._on_signal)
            yield
        finally:
            for number, handler in zip(numbers, before):
                signal.signal(number, handler)

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.signal is None:
            self.signal = number
            (self.path / STOP).touch()
            print("the sweep stops: its jobs save themselves; Ctrl-C again ends them at once", file=sys.stderr)

    # The end

    def metric_columns(self) -> list[Column]:
        """Return further columns of the terminal's table."""
        return []

    def _print_table(self, jobs: Sequence[Job]) -> None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        statuses = [job.status for job in jobs]
        counts = [f"{n} {status}" for status in (*STATUSES, "pending") if (n := statuses.count(status))]
        print(f"\n{table.terminal_table(jobs, self.metric_columns(), width)}\n")
        print(f"{len(jobs)} job{'s' * (len(jobs) != 1)}: {', '.join(counts)}")
        print(f"written to {self.path / table.CSV}")
        if {*statuses} & {*NOT_ENDED, "running"}:
            print("the same command goes on with what is not completed")
        if "failed" in statuses and not self.settings.retry_failed:
            print("the same command with retry_failed=true runs the failed ones again")
        sys.stdout.flush()
        if self.failed_before:  # of which nobody has said anything this time
            again = "the same command with retry_failed=true runs them again"
            self._print_error(f"{self.failed_before} of {len(jobs)} jobs failed before; {again}")

    def _exit_status(self, jobs: Sequence[Job]) -> int:
        """Return 128 + the signal's number after a signal, 1 unless every job is done, else 0."""
        if self.signal is not None:
            return 128 + self.signal
        return int(any(job.status not in ("completed", "pruned") for job in jobs))


class GridSweeper(JobSweeper):
    """A sweeper that trains every combination of the values."""

    def check(self, parsed: list[Override]) -> None:
        self.combinations = overrides.combinations(parsed, self.context.config_loader)

    def run_all(self, parsed: list[Override]) -> list[Job]:
        values: dict[str, set[str]] = {}
        for text in (text for combination in self.combinations for text in combination):
            values.setdefault(key_of(text), set()).add(text)
        swept = [key for key, texts in values.items() if len(texts) > 1]
        jobs = assign_directories(self.path, self.combinations, swept)
        self.task = replace(self.task, names=tuple(job.path.name for job in jobs))
        self.run(jobs)
        return jobs


class OptunaSweeper(JobSweeper):
    """A sweeper that searches with Optuna, whose trials are jobs.

    Args:
        settings: see `study.SETTINGS`.
    """

    def __init__(self, **settings: Any) -> None:
        self.search_settings: Any = OmegaConf.to_container(OmegaConf.create(settings))

    def check(self, parsed: list[Override]) -> None:
        optimize = self.settings.optimize
        metrics = list(optimize) if OmegaConf.is_list(optimize) else [optimize]
        space, self.fixed = split_overrides(parsed)
        self.study = make_study(self.search_settings, metrics, space, self.settings)
        if self.search_settings["n_jobs"] > 1 and self._at_once == 1:
            raise ConfigError("hydra.sweeper.n_jobs: for trials beside each other add a launcher, hydra/launcher=cores")

    def run_all(self, parsed: list[Override]) -> list[Job]:
        with_effect = [str(override.input_line) for override in parsed if has_effect(override.key_or_group)]
        self.study = self.study.open(self.path, with_effect)
        self.task = replace(self.task, study=self.study)
        at_once = self.search_settings["n_jobs"]
        left = self.study.unfinished()  # of a start that was killed
        for first in range(0, len(left), at_once):
            self._run_trials(left[first : first + at_once])
        if self.settings.retry_failed:
            self.study.repeat_failed()
        while not self.is_stopped and (trials := self.study.ask(at_once)):
            self._run_trials(trials)
        return [job for job in read_jobs(self.path) if job.trial is not None]

    def _run_trials(self, trials: Sequence[Trial]) -> None:
        jobs = [
            save_job(self._directory(trial), trial.number, self._overrides(trial), trial.overrides, trial.number)
            for trial in trials
        ]
        self.run(jobs, self.search_settings["n_jobs"])
        self.study.tell(jobs)

    def _directory(self, trial: Trial) -> Path:
        return self.path / f"trial_{trial.number:04d}"

    def _overrides(self, trial: Trial) -> list[str]:
        return [*self.fixed, *(f"{key}={value}" for key, value in trial.overrides.items())]

    def metric_columns(self) -> list[Column]:
        metrics = [metric for metric in self.study.metrics if metric != "seconds"]
        return [Column(metric, partial(number_of, metric=metric)) for metric in metrics]

    def _print_table(self, jobs: Sequence[Job]) -> None:
        """Print the table and the best trials, and write these as presets."""
        super()._print_table(jobs)
        best = self.study.best()
        for trial in best:
            name = "best" if len(self.study.metrics) == 1 else f"best_{trial.number:04d}"
            summary, preset = (
                self.study.describe(trial),
                overrides.preset(overrides.parse(self._overrides(trial)), "train"),
            )
            write_text(self.path / "experiment" / f"{name}.yaml", f"# @package _global_\n# {summary}\n{preset}")
            print(f"best: {summary}")
            print(f"      {shlex.join(['vae-train', '--config-dir', str(self.path), f'experiment={name}'])}")
        if not best:
            print("no trial was completed")
        sys.stdout.flush()


def connect_to_ray(options: DictConfig) -> None:
    """Connect to a Ray cluster before its launcher does, which then stays connected.

    Raises:
        ConfigError: if there is none.
    """
    import ray

    arguments: Any = OmegaConf.to_container(options)
    address = str(arguments.get("address"))
    host, _, port = address.rpartition(":")
    try:
        if port.isdigit() and "://" not in host:  # Ray itself would wait for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(**arguments, ignore_reinit_error=True)
    except Exception as error:
        raise ConfigError(
            f"hydra.launcher.ray.init.address={address}: no Ray cluster there ({describe(error)})"
        ) from error


def register() -> None:
    """Make the sweepers known to Hydra, which finds plugins by names in its own package alone."""
    for sweeper in (GridSweeper, OptunaSweeper):
        Plugins.instance().class_name_to_class[f"hydra_plugins.vae_cli.{sweeper.__name__}"] = sweeper
