"""The work in a job's process: train, go on from the last checkpoint, or leave alone what is done."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict, read_write

from vae_cli.build.settings import may_change
from vae_cli.errors import CheckpointError, DirectoryInUse, UserError, exit_status, one_line
from vae_cli.runs.reader import stored_checkpoints
from vae_cli.sweeps.job import Job, read_job
from vae_cli.sweeps.study import Study
from vae_cli.sweeps.table import write_tables
from vae_cli.system import streams, threads
from vae_cli.training import signals

STOP = ".stop"  # a file in the sweep's directory: its jobs are to save themselves and end
POLL = 0.5  # seconds between looks for it
PARENT = os.getppid()  # of this process when it began; another one once that has died

Arguments = tuple[dict[str, Any], Path, frozenset[str], str]  # config, run directory, overridden keys, command


@dataclass(frozen=True)
class Task:
    """The callable of a job that Hydra's launchers call in its process, wherever that is, and again if need be.

    Args:
        arguments: from Hydra's config to a training's arguments.
        train: trains one model and returns its exit status.
        command: the command line of the sweep.
        sweep_process: the id of the sweep's own process, in which jobs run one after the other.
        threads: of the CPU, for each job; None leaves that to torch or Slurm.
        is_quiet: whether a job's lines go to its train.log alone, since others run beside it.
        fail_fast: whether a failure ends the sweep.
        study: of a search, which may prune the job.
        names: of the directories of the sweep's jobs, in order; a search's are not known beforehand.
    """

    arguments: Callable[[DictConfig], Arguments]
    train: Callable[..., int]
    command: str
    sweep_process: int
    threads: int | None = None
    is_quiet: bool = False
    fail_fast: bool = False
    study: Study | None = None
    names: tuple[str, ...] = ()

    def __call__(self, config: DictConfig) -> int:
        """Run the job of Hydra's config unless it is done, and return its exit status, 0 if it is pruned."""
        streams.prepare()
        hydra_config: Any = HydraConfig.instance().cfg
        hydra = hydra_config.hydra
        path = Path(hydra.runtime.output_dir)
        job = read_job(path) or Job(hydra.job.num, tuple(hydra.overrides.task), path)
        with read_write(hydra.job), open_dict(hydra.job):
            hydra.job.num = job.number  # for ${hydra:job.num}, whichever jobs a launcher was given with it
        if not self._is_in_sweep_process and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # the sweep's process decides between trainings
            for number in signals.hangup():
                signal.signal(number, lambda *_: None)
        if self._should_stop(path.parent) or job.status in ("completed", "running"):
            return 0
        print(f"{self._place(job)} begins", flush=True)
        pruner = None if self.study is None else self.study.pruner_of(job)
        with self._stopped_with_the_sweep(path.parent):
            status = exit_status("vae-train", partial(self._run, job, config, pruner))
        if pruner is not None and pruner.is_pruned:
            replace(job, pruned=True).write()
            status = 0
        status = self._finish(job, status)
        if self._has_lost_parent:
            os._exit(status)  # joblib's workers keep each other alive, with nothing to do any more
        return status

    def _place(self, job: Job) -> str:
        """Return which job of how many it is, and the name of its directory."""
        name = job.path.name
        if self.study is not None:
            return f"{job.number + 1} of {max(self.study.total, job.number + 1)}  {name}"
        return f"{self.names.index(name) + 1} of {len(self.names)}  {name}" if name in self.names else name

    @property
    def _is_in_sweep_process(self) -> bool:
        return os.getpid() == self.sweep_process

    @property
    def _has_lost_parent(self) -> bool:
        return not self._is_in_sweep_process and os.getppid() != PARENT

    def _should_stop(self, sweep: Path) -> bool:
        return self._has_lost_parent or not streams.has_reader() or (sweep / STOP).exists()

    @contextmanager
    def _stopped_with_the_sweep(self, sweep: Path) -> Iterator[None]:
        """Let the training inside save itself and end as soon as the sweep is to stop."""
        has_ended = threading.Event()

        def watch() -> None:
            while not has_ended.wait(POLL):
                if self._should_stop(sweep):
                    signals.request_stop(signal.SIGTERM)

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            has_ended.set()
            watcher.join()
            signals.request_stop(None)

    def _run(self, job: Job, config: DictConfig, on_metrics: Callable[..., None] | None) -> int:
        """Train with the job's share of the machine; an error before the training could write one is its summary's."""
        summary = job.path / "summary.json"
        try:
            job.write()
            summary.unlink(missing_ok=True)  # of an earlier attempt
            settings, directory, overridden, command = self.arguments(config)
            train = self.train if on_metrics is None else partial(self.train, on_metrics=on_metrics)
            with ExitStack() as stack:
                if self.is_quiet:
                    sink = stack.enter_context(streams.null_file())
                    stack.enter_context(redirect_stdout(sink))
                    stack.enter_context(redirect_stderr(sink))
                stack.enter_context(threads.restored_threads())
                threads.use_threads(self.threads or threads.slurm_threads())
                stack.enter_context(threads.reserved_gpu(settings["device"], job.number))
                status = train_or_resume(train, settings, directory, overridden, command)
            if not summary.exists():
                job.write_summary("interrupted" if status > 128 else "failed" if status else "completed")
            return status
        except DirectoryInUse:  # another process trains it
            return 0
        except Exception as error:
            if not summary.exists():
                job.write_summary("failed", one_line(error))
            if isinstance(error, UserError):
                raise type(error)(f"{job.title}: {error}") from error
            raise

    def _finish(self, job: Job, status: int) -> int:
        """Tell the sweep, its tables and its reader how the job ended."""
        sweep = job.path.parent
        if status > 128 and not self._should_stop(sweep):
            if self._is_in_sweep_process:
                signal.raise_signal(status - 128)  # which only the training has seen so far
            requeue_on_slurm()
        if job.run.status == "failed" and self.fail_fast:
            (sweep / STOP).touch()
        write_tables(sweep)
        elbo, seconds = job.run.number("elbo"), job.run.number("seconds")
        numbers = "" if elbo is None else f": test elbo {elbo:,.2f}, {seconds or 0:,.1f} s"
        print(f"{self._place(job)} {job.status}{numbers}", flush=True)
        return status


def train_or_resume(
    train: Callable[..., int], settings: dict[str, Any], directory: Path, overridden: frozenset[str], command: str
) -> int:
    """Train, or go on from the newest checkpoint in the directory; one that does not open is put aside."""
    if stored_checkpoints(directory):
        changes = frozenset(key for key in overridden if may_change(key) or key == "allow")
        resume = {"resume": str(directory), "allow": settings["allow"] or own_package(settings, overridden)}
        try:
            return train(settings | resume, directory, changes, command)
        except CheckpointError as error:
            print(f"trained from the beginning: {error}", file=sys.stderr, flush=True)
            for path in (*stored_checkpoints(directory), directory / "metrics.jsonl"):
                if path.exists():
                    path.replace(path.with_name(f"{path.name}.set_aside"))
    return train(settings, directory, overridden, command)


def own_package(settings: dict[str, Any], overridden: frozenset[str]) -> str | None:
    """Return the package of the user's own classes that the command line names: the job's checkpoint names it too."""
    groups = [key.removesuffix("._target_") for key in overridden if key.endswith("._target_")]
    packages = {str(settings[group]["_target_"]).partition(".")[0] for group in groups} - {"vae_cli", "torch"}
    return packages.pop() if len(packages) == 1 else None


def requeue_on_slurm() -> None:
    """Let submitit put this job back into Slurm's queue, after a preemption or the time limit. It ends the process."""
    for number in (signal.SIGUSR2, signal.SIGUSR1) if "SLURM_JOB_ID" in os.environ else ():
        if callable(signal.getsignal(number)):
            signal.raise_signal(number)
