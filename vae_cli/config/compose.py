"""From a command line to a plain, checked config.

Every mistake in a command line is a `ConfigError` of one line, raised before any directory is made.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hydra import version
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_config_search_path
from hydra.core.config_search_path import SearchPathQuery
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from vae_cli.build.options import conf_dir, sweep_keys
from vae_cli.build.settings import from_texts
from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine, read_command_line
from vae_cli.config.validation import check, check_keys, show
from vae_cli.errors import ConfigError, first_line
from vae_cli.system.paths import expand


@dataclass(frozen=True)
class Session:
    """A command on its way through Hydra."""

    hydra: Hydra
    command: str
    line: CommandLine

    @property
    def config_name(self) -> str:
        """Return the primary config's name."""
        return str(self.line.flags.config_name or self.command).removesuffix(".yaml")

    def compose(self, texts: list[str]) -> DictConfig:
        """Return Hydra's config for these overrides."""
        mode = RunMode.MULTIRUN if self.line.multirun else RunMode.RUN
        with self.explained(texts), warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            return self.hydra.compose_config(self.config_name, texts, mode)

    def checked_config(self) -> DictConfig:
        """Return Hydra's config with every key and value checked; of a sweep, every value that is not swept."""
        parsed = overrides.parse(self.line.overrides)
        for override in parsed:
            overrides.check_sweep(override, self.line.multirun)
            overrides.check_choice(override, self.hydra.config_loader, self.command)
        if self.line.multirun:
            self._check_jobs(parsed)
        elif self.command == "train":
            overrides.check_no_sweep_keys(parsed)
        config = self.compose(overrides.follow_swept_groups(parsed))
        overrides.check_deleted(parsed, config, self.command)
        check_keys(overrides.unresolved(config), self.command)
        _set_output_dir(config, self.line.multirun)
        check(to_plain(config), self.command)
        return config

    def _check_jobs(self, parsed: list[Override]) -> None:
        """Check what all jobs of a sweep have in common; a job that is wrong by itself fails alone."""
        for override in parsed:
            if override.key_or_group == "hydra.run.dir":
                raise ConfigError("hydra.run.dir is the folder of one run; name that of a sweep with sweep=DIR")
            if override.key_or_group == "hydra.sweep.subdir":
                raise ConfigError("hydra.sweep.subdir: the folders of a sweep's jobs are named by their settings")
            if override.key_or_group == "resume" and override.value() is not None:
                raise ConfigError("resume= goes on with one run; leave out -m, or give the same sweep=DIR again")
        errors, samples = [], list(overrides.sample_jobs(parsed, self.hydra.config_loader))
        for job in samples:
            try:
                check_keys(overrides.unresolved(self.compose(job)), self.command)
            except ConfigError as error:
                errors.append(error)
        if len(errors) == len(samples):
            raise errors[0]

    @contextmanager
    def explained(self, texts: list[str], kinds: tuple[type[Exception], ...] = (Exception,)) -> Iterator[None]:
        """Turn what Hydra and OmegaConf raise into one line about the override at fault."""
        try:
            yield
        except kinds as error:
            is_hydras = isinstance(error, HydraException)  # some of which are an OSError too
            if isinstance(error, ConfigError) or (isinstance(error, OSError) and not is_hydras):
                raise
            message = overrides.explain(error, texts, self.hydra.config_loader, self.command, self.config_name)
            raise ConfigError(message) from error


@contextmanager
def session(command: str, line: CommandLine) -> Iterator[Session]:
    """Hydra over the config folders of a command line; its global state is put back afterwards."""
    main = _folder("--config-path", line.flags.config_path) or conf_dir()
    extra = _folder("--config-dir", line.flags.config_dir)
    search_path = create_config_search_path(str(main))
    for provider, folder in (("vae_cli", conf_dir()), ("command-line", extra)):
        if folder and folder != main:
            search_path.prepend(provider, f"file://{folder}", SearchPathQuery(provider="schema"))
    if command == "train" and not line.multirun:
        line = replace(line, overrides=overrides.beside_resume(line.overrides))
    before = GlobalHydra.instance().hydra, HydraConfig.instance().cfg
    base = version.VersionBase.instance().version_base
    GlobalHydra.instance().clear()
    version.setbase("1.3")
    try:
        yield Session(Hydra.create_main_hydra2(command, search_path), command, line)
    finally:
        GlobalHydra.instance().hydra, HydraConfig.instance().cfg = before
        version.VersionBase.instance().version_base = base


def compose(command: str, argv: Sequence[str] = ()) -> dict[str, Any]:
    """Return the plain, checked config of a command that runs once.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with session(command, read_command_line(argv)) as opened:
        return of_one_run(to_plain(opened.checked_config()))


def of_one_run(config: dict[str, Any]) -> dict[str, Any]:
    """Return a config without the keys of a sweep as a whole."""
    return {key: value for key, value in config.items() if key not in sweep_keys()}


def to_plain(config: DictConfig) -> dict[str, Any]:
    """Return a config without Hydra's own node, resolved into plain containers.

    Raises:
        ConfigError: naming the key whose interpolation leads nowhere.
    """

    def plain(value: Any) -> Any:
        is_config = OmegaConf.is_config(value)
        return OmegaConf.to_container(value, resolve=True, throw_on_missing=True) if is_config else value

    try:
        return from_texts({str(key): plain(config[key]) for key in config if key != "hydra"})
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or 'config'}: {first_line(error)}") from error


def _folder(flag: str, value: str | None) -> Path | None:
    if value is None:
        return None
    path = expand(value).absolute()
    if not path.is_dir():
        raise ConfigError(f"{flag} {value}: there is no such folder")
    return path


def _set_output_dir(config: DictConfig, multirun: bool) -> None:
    """Give `${hydra:...}` what a job would find there, and check that the directory's name resolves."""
    key, shown = ("hydra.sweep.dir", "sweep") if multirun else ("hydra.run.dir", "hydra.run.dir")
    if multirun:
        config.hydra.job.num, config.hydra.job.id = 0, "0"
    HydraConfig.instance().set_config(config)
    try:
        directory = OmegaConf.select(config, key)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{shown}: {first_line(error)}") from error
    if not directory:
        raise ConfigError(f"{shown}= is empty; name a folder, or leave it out")
    if "${" in directory:
        raise ConfigError(f"{shown}={show(directory)}: {shown} accepts a folder without ${{ in its name")
    with read_write(config.hydra.runtime), open_dict(config.hydra.runtime):
        config.hydra.runtime.output_dir = str(Path(directory).absolute())
