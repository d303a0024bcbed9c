"""From a command line to a plain, checked config, and from there through Hydra to the job.

Whatever is wrong with a command line is a `ConfigError` of one line, raised before any directory is made.
"""

import shlex
import warnings
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path, get_args_parser
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from vae_cli import flags, overrides
from vae_cli.checks import check, check_keys, parse_interval, show, unknown
from vae_cli.command_line import as_typed, escape, for_hydra
from vae_cli.errors import ConfigError
from vae_cli.reason import without_passwords
from vae_cli.runs import LEFT
from vae_cli.schema import conf_dir, of_sweeps, options

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


@dataclass(frozen=True)
class CommandLine:
    """Hydra's overrides, readable to it, and its flags."""

    overrides: list[str]
    flags: Namespace

    @property
    def multirun(self) -> bool:
        return bool(self.flags.multirun)

    @property
    def asks(self) -> bool:
        """Whether a flag asks for something else than to run."""
        asked = self.flags
        return bool(asked.cfg or asked.info or asked.hydra_help or asked.shell_completion)

    def without_places(self) -> tuple["CommandLine", list[str]]:
        """The line without the words that name directories, and those words."""
        places = [word for word in self.overrides if "/" in word.partition("=")[0] or _is_place(word)]
        return replace(self, overrides=[word for word in self.overrides if word not in places]), places


def _is_place(word: str) -> bool:
    return "=" not in word or Path(word).exists()


@dataclass(frozen=True)
class _Session:
    """A command on its way through Hydra."""

    hydra: Hydra
    command: str
    line: CommandLine

    @property
    def name(self) -> str:
        """The primary config's."""
        return str(self.line.flags.config_name or self.command).removesuffix(".yaml")


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Separates flags, wherever they stand, from overrides, and quotes the paths among these.

    Raises:
        ConfigError: for an unknown, incomplete or contradictory flag.
    """
    read = flags.read(argv, get_args_parser)
    return CommandLine([for_hydra(argument, read.multirun) for argument in read.overrides], read)


def compose(command: str, argv: Sequence[str] = ()) -> dict[str, Any]:
    """The plain, checked config of a command that runs once and keeps no Hydra directory.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with _session(command, read_command_line(argv)) as session:
        return _of_one_run(to_plain(_checked(session)))


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


def option(group: str, name: str) -> dict[str, Any]:
    """One option file of `conf/` as plain data.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in options(group):
        raise ConfigError(overrides.no_option(group, name, options(group)))
    loaded = OmegaConf.load(conf_dir() / group / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return to_plain(loaded)


def to_plain(config: DictConfig) -> dict[str, Any]:
    """A config without Hydra's own node, resolved into plain containers.

    Raises:
        ConfigError: naming the key whose interpolation leads nowhere.
    """
    try:
        return {str(key): _plain(config[key]) for key in config if key != "hydra"}
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {overrides.first_line(error)}") from error


def to_yaml(config: dict[str, Any]) -> str:
    """A plain config as YAML that Hydra and OmegaConf read back as it is, a literal `${` included."""
    return OmegaConf.to_yaml(OmegaConf.create(_escaped(config)))


def _plain(value: Any) -> Any:
    if not OmegaConf.is_config(value):
        return value
    return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)


def _escaped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _escaped(inside) for key, inside in value.items()}
    if isinstance(value, list):
        return [_escaped(inside) for inside in value]
    return escape(value) if isinstance(value, str) else value


# Hydra's flags


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


# Composing


@contextmanager
def _session(command: str, line: CommandLine) -> Iterator[_Session]:
    """Hydra over the config folders of a command line; its global state is put back afterwards."""
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    try:
        yield _Session(Hydra.create_main_hydra2(command, _search_path(line.flags)), command, line)
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before


def _search_path(flags: Namespace) -> ConfigSearchPath:
    main = _folder("--config-path", flags.config_path) or conf_dir()
    extra = _folder("--config-dir", flags.config_dir)
    search_path = create_config_search_path(str(main))
    for provider, folder in (("vae_cli", conf_dir()), ("command-line", extra)):
        if folder and folder != main:
            search_path.prepend(provider, f"file://{folder}", SearchPathQuery(provider="schema"))
    return search_path


def _folder(flag: str, value: str | None) -> Path | None:
    if value is None:
        return None
    path = Path(value).expanduser().absolute()
    if not path.is_dir():
        raise ConfigError(f"{flag} {value}: there is no such folder")
    return path


def _checked(session: _Session) -> DictConfig:
    """The composed config with every value checked; of a sweep, every value that is not swept."""
    command, line = session.command, session.line
    parsed = overrides.parse(line.overrides)
    for override in parsed:
        overrides.check_sweep(override, line.multirun)
        overrides.check_choice(override, session.hydra.config_loader, command)
    if line.multirun:
        _check_sweep(session, parsed)
    elif command == "train":
        overrides.check_of_no_sweep(parsed)
    config = _compose(session, overrides.follow_swept_groups(parsed))
    overrides.check_deleted(parsed, config, command)
    check_keys(overrides.outline(config), command)
    _stage(config, line.multirun)
    check(to_plain(config), command)
    return config


def _check_sweep(session: _Session, parsed: list[Override]) -> None:
    """Checks what all jobs of a sweep have in common; a job that is wrong by itself fails alone."""
    for override in parsed:
        if override.key_or_group == "hydra.run.dir":
            raise ConfigError("hydra.run.dir is the folder of one run; name that of a sweep with sweep=DIR")
        if override.key_or_group == "hydra.sweep.subdir":
            raise ConfigError("hydra.sweep.subdir: the folders of a sweep's jobs are named by their settings")
        if override.key_or_group == "resume" and override.value() is not None:
            raise ConfigError("resume= goes on with one run; leave out -m, or give the same sweep=DIR again")
    wrong, samples = [], list(overrides.sample_jobs(parsed, session.hydra.config_loader))
    for job in samples:
        try:
            check_keys(overrides.outline(_compose(session, job)), session.command)
        except ConfigError as error:
            wrong.append(error)
    if len(wrong) == len(samples):
        raise wrong[0]


def _compose(session: _Session, texts: list[str]) -> DictConfig:
    mode = RunMode.MULTIRUN if session.line.multirun else RunMode.RUN
    with _explaining(session, texts), warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return session.hydra.compose_config(session.name, texts, mode)


@contextmanager
def _explaining(
    session: _Session, texts: list[str], kinds: tuple[type[Exception], ...] = (Exception,)
) -> Iterator[None]:
    """Turns what Hydra and OmegaConf raise into one line about the argument at fault."""
    try:
        yield
    except kinds as error:
        hydras = isinstance(error, HydraException)  # some of which are an OSError too
        if isinstance(error, ConfigError) or (isinstance(error, OSError) and not hydras):
            raise
        what = overrides.explain(error, texts, session.hydra.config_loader, session.command, session.name)
        raise ConfigError(what) from error


def _stage(config: DictConfig, multirun: bool) -> None:
    """Gives `${hydra:...}` what a job would find there, and checks that the directory's name resolves."""
    key = _directory_key(multirun)
    typed = "sweep" if multirun else key
    if multirun:
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    HydraConfig.instance().set_config(config)
    try:
        directory = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{typed}: {overrides.first_line(error)}") from error
    if not directory:
        raise ConfigError(f"{typed}= is empty; name a folder, or leave it out")
    if "${" in directory:
        raise ConfigError(f"{typed}={show(directory)}: {typed} accepts a folder without ${{ in its name")
    if multirun and any((Path(directory) / name).exists() for name in LEFT):
        raise ConfigError(f"sweep={show(directory)} is the directory of a run; name another folder")
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(Path(directory).absolute())


# Jobs


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
            from vae_cli import sweeps

            typed = without_passwords(_typed(session.command, ["-m", *line.overrides]))
            task: Callable[[DictConfig], int] = sweeps.Task(arguments, job, guard, session.command, typed)
            sweeps.register()
            returned = session.hydra.multirun(session.name, task, [*texts, "hydra.mode=MULTIRUN"])
        else:
            task = partial(_run, arguments=arguments, job=job, guard=guard)
            returned = session.hydra.run(session.name, task, [*texts, "hydra.mode=RUN"])
    return max(_statuses(returned), default=0)


def _directory_key(multirun: bool) -> str:
    return "hydra.sweep.dir" if multirun else "hydra.run.dir"


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


def _of_one_run(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what only a sweep as a whole is told."""
    return {key: value for key, value in config.items() if key not in of_sweeps()}


def _statuses(returned: Any) -> Iterator[int]:
    """The exit statuses in what a sweeper returns: its own, or job returns nested by batch."""
    if isinstance(returned, int):
        yield returned
    elif isinstance(returned, JobReturn):
        yield int(returned.return_value or 0)
    elif isinstance(returned, (list, tuple)):
        for each in returned:
            yield from _statuses(each)
