"""From a command line to a plain, checked config.

Whatever is wrong with a command line is a `ConfigError` of one line, raised before any directory is made.
"""

import warnings
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine, escape, read_command_line
from vae_cli.config.options import conf_dir, of_sweeps
from vae_cli.config.validation import check, check_keys, show
from vae_cli.errors import ConfigError
from vae_cli.runs.reader import LEFT


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


def compose(command: str, argv: Sequence[str] = ()) -> dict[str, Any]:
    """The plain, checked config of a command that runs once and keeps no Hydra directory.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with _session(command, read_command_line(argv)) as session:
        return _of_one_run(to_plain(_checked(session)))


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


def _directory_key(multirun: bool) -> str:
    return "hydra.sweep.dir" if multirun else "hydra.run.dir"


def _of_one_run(config: dict[str, Any]) -> dict[str, Any]:
    """A config without what only a sweep as a whole is told."""
    return {key: value for key, value in config.items() if key not in of_sweeps()}
