"""From a checked config through Hydra to the job."""

import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine, as_typed, read_command_line
from vae_cli.config.compose import (
    _checked,
    _compose,
    _directory_key,
    _explaining,
    _of_one_run,
    _Session,
    _session,
    compose,
    to_plain,
    to_yaml,
)
from vae_cli.config.options import conf_dir, option, options
from vae_cli.config.validation import check, parse_interval, unknown
from vae_cli.errors import ConfigError, without_passwords

__all__ = [
    "CommandLine",
    "call",
    "check",
    "compose",
    "conf_dir",
    "launch",
    "option",
    "options",
    "parse_interval",
    "read_command_line",
    "to_plain",
    "to_yaml",
]
Arguments = tuple[dict[str, Any], Path, frozenset[str], str]
Job = Callable[[dict[str, Any], Path, frozenset[str], str], int]
Guard = Callable[[Callable[[], int]], int]


def call(command: str, line: CommandLine, job: Callable[[dict[str, Any]], None]) -> int:
    """Hands the config of a command that runs once to its job, or answers `--cfg` and the like.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    if line.multirun:
        raise ConfigError(f"-m: vae-{command} runs once; only vae-train sweeps")
    with _session(command, line) as session:
        if _completes(session):
            return 0
        config = to_plain(_checked(session))
        if _shows(session):
            return 0
    if config.get("checkpoint", "") is None:
        raise ConfigError("checkpoint=RUN_DIR_OR_FILE is missing")
    job(config)
    return 0


def launch(line: CommandLine, job: Job, command: str = "train", guard: Guard = lambda run: run()) -> int:
    """Runs a job through Hydra, once or for every combination of a sweep; the exit status, the worst of all.

    The job gets its plain config, its directory, the keys that were typed and the command that trains the same.
    Nothing is made on disk before the command line is known to be right. `guard` runs a job and turns what it raises
    into an exit status, so that one failing job of a sweep leaves the others alone; both must be picklable.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with _session(command, line) as session:
        if _completes(session):
            return 0
        config = to_plain(_checked(session))
        if _shows(session):
            return 0
        if config["resume"] is not None:
            return _resume(config, line, job)
        return _start(session, job, guard)


def _completes(session: _Session) -> bool:
    """Answers the flags whose arguments are not settings of the command."""
    hydra, flags, texts = session.hydra, session.line.flags, session.line.overrides
    if flags.shell_completion:
        with _explaining(session, texts):
            hydra.shell_completion(session.name, texts)
    elif flags.hydra_help:
        flags.overrides = [text for text in texts if text.lstrip("+~").startswith("hydra")]
        with _explaining(session, texts):
            hydra.hydra_help(None, get_args_parser(), flags)
    return bool(flags.shell_completion or flags.hydra_help)


def _shows(session: _Session) -> bool:
    """Answers `--cfg` and `--info` through Hydra; False where neither was asked."""
    hydra, flags, texts = session.hydra, session.line.flags, session.line.overrides
    if flags.cfg:
        _check_package(session)
        with _explaining(session, texts):
            hydra.show_cfg(session.name, texts, flags.cfg, flags.package, flags.resolve)
    elif flags.info:
        hydra.show_info(flags.info, session.name, texts)
    return bool(flags.cfg or flags.info)


def _check_package(session: _Session) -> None:
    package = session.line.flags.package
    if package in (None, "_global_"):
        return
    config = _compose(session, session.line.overrides)
    if not overrides.has(config, package):
        known = overrides.flat(config, package.startswith("hydra"))
        raise ConfigError(f"--package {package}: {unknown(package, known)}")


def _resume(config: dict[str, Any], line: CommandLine, job: Job) -> int:
    """Runs the job in the directory that it left; Hydra, which would make a new one, stays out."""
    given = overrides.given(line.overrides)
    return job(_of_one_run(config), Path(config["resume"]).expanduser(), given, _typed("train", line.overrides))


def _typed(command: str, texts: Sequence[str]) -> str:
    """A command line that a shell reads back."""
    return shlex.join([f"vae-{command}", *map(as_typed, texts)])


def _start(session: _Session, job: Job, guard: Guard) -> int:
    line, parsed = session.line, overrides.parse(session.line.overrides)
    texts = overrides.follow_swept_groups(parsed)
    arguments = partial(_arguments, command=session.command)
    with _explaining(session, texts, (HydraException, OmegaConfBaseException)), _making_folders(line.multirun):
        if line.multirun:
            from vae_cli.sweeps import sweepers

            typed = without_passwords(_typed(session.command, ["-m", *line.overrides]))
            task: Callable[[DictConfig], int] = sweepers.Task(arguments, job, guard, session.command, typed)
            sweepers.register()
            returned = session.hydra.multirun(session.name, task, [*texts, "hydra.mode=MULTIRUN"])
        else:
            task = partial(_run, arguments=arguments, job=job, guard=guard)
            returned = session.hydra.run(session.name, task, [*texts, "hydra.mode=RUN"])
    return max(_statuses(returned), default=0)


@contextmanager
def _making_folders(multirun: bool) -> Iterator[None]:
    """Names the key of a folder that Hydra cannot make; a job's own errors never come this far."""
    try:
        yield
    except OSError as error:
        key = "sweep" if multirun else _directory_key(multirun)
        raise ConfigError(
            f"{key}={error.filename} cannot be made ({error.strerror or error}); name another folder"
        ) from error


def _run(config: DictConfig, arguments: Callable[[DictConfig], Arguments], job: Job, guard: Guard) -> int:
    """What Hydra runs for a single run."""
    return guard(lambda: job(*arguments(config)))


def _arguments(config: DictConfig, command: str) -> Arguments:
    """What a job that Hydra runs is to be given: its checked plain config, directory, typed keys and command."""
    hydra = HydraConfig.get()
    plain, texts, directory = to_plain(config), list(hydra.overrides.task), Path(hydra.runtime.output_dir)
    check(plain, command)
    place = [text for text in hydra.overrides.hydra if text.startswith("hydra.run.dir=")]
    return _of_one_run(plain), directory, overrides.given(texts), _typed(command, [*texts, *place])


def _statuses(returned: Any) -> Iterator[int]:
    """The exit statuses in what a sweeper returns: its own, or job returns nested by batch."""
    if isinstance(returned, int):
        yield returned
    elif isinstance(returned, JobReturn):
        yield int(returned.return_value or 0)
    elif isinstance(returned, (list, tuple)):
        for each in returned:
            yield from _statuses(each)
