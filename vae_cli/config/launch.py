"""The way of a command line through Hydra to the job."""

import re
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

from hydra._internal.utils import get_args_parser
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vae_cli.build import options
from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine, quote
from vae_cli.config.compose import Session, of_one_run, session, to_plain
from vae_cli.config.validation import unknown
from vae_cli.errors import ConfigError, describe
from vae_cli.system.paths import expand

Config = dict[str, Any]
Job = Callable[[Config, Path, frozenset[str], str], int]  # config, directory, overridden keys, command
Check = Callable[[Config, frozenset[str]], object]  # config, overridden keys


def launch(line: CommandLine, job: Job, check: Check | None = None) -> int:
    """Run a job once through Hydra and return its exit status; its exceptions pass through.

    Args:
        line: of `vae-train`, without `-m`.
        job: gets the plain config, its directory, the dotted keys that were overridden, and the command as a text.
        check: of values against the classes that take them, called before anything is made on the disk.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with session("train", line) as opened:
        if answer_flags(opened):
            return 0
        config = opened.checked_config()
        plain, overridden, text = of_one_run(to_plain(config)), overrides.keys(line.overrides), line.text("train")
        if plain["resume"] is not None:  # into a directory that exists: Hydra would make another
            return job(plain, expand(plain["resume"]), overridden, text)
        if check is not None:
            check(plain, overridden)
        directory = Path(config.hydra.run.dir)
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            what = f"hydra.run.dir={error.filename} cannot be made ({describe(error)})"
            raise ConfigError(f"{what}; name another folder") from error

        failures: list[Exception] = []

        def task(config: DictConfig) -> int:
            try:
                return job(of_one_run(to_plain(config)), directory.absolute(), overridden, text)
            except Exception as error:  # Hydra would print lines of its own about it
                failures.append(error)
                return 1

        texts = [*line.overrides, f"hydra.run.dir={quote(str(directory))}", "hydra.mode=RUN"]
        with opened.explained(texts, (HydraException, OmegaConfBaseException)):
            status = int(opened.hydra.run(opened.config_name, task, texts).return_value)
    if failures:
        raise failures[0]
    return status


def call(command: str, line: CommandLine, job: Callable[[Config], None]) -> int:
    """Give the config of a command that keeps no Hydra directory to its job, or answer `--cfg` and the like.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    if line.multirun:
        raise ConfigError(f"-m: vae-{command} runs once; only vae-train sweeps")
    with session(command, line) as opened:
        if answer_flags(opened):
            return 0
        config = to_plain(opened.checked_config())
    if config.get("checkpoint", "") is None:
        raise ConfigError("checkpoint=RUN_DIR_OR_FILE is missing")
    job(config)
    return 0


def _without_other_groups(completions: str, command: str) -> str:
    """Return words that complete a command line without the groups that only other commands take."""
    own = {*options.groups(command), *(key.name for key in options.keys(command))}
    others = "|".join({*options.groups("train")} - own)
    return re.sub(rf"(?<!\S)({others})[.=]\S*[ \n]?", "", completions) if others else completions


def answer_flags(opened: Session) -> bool:
    """Answer `--cfg`, `--info`, `--hydra-help` and `--shell-completion`; False where none was given."""
    hydra, flags, texts = opened.hydra, opened.line.flags, opened.line.overrides
    if flags.shell_completion:
        with opened.explained(texts), redirect_stdout(StringIO()) as printed:
            hydra.shell_completion(opened.config_name, texts)
        print(_without_other_groups(printed.getvalue(), opened.command), end="")
    elif flags.hydra_help:
        flags.overrides = [text for text in texts if text.lstrip("+~").startswith("hydra")]
        with opened.explained(texts):
            hydra.hydra_help(None, get_args_parser(), flags)
    elif flags.cfg:
        config = opened.checked_config()
        if flags.package not in (None, "_global_") and not overrides.has(config, flags.package):
            dotted = overrides.dotted_keys(config, flags.package.startswith("hydra"))
            raise ConfigError(f"--package {flags.package}: {unknown(flags.package, dotted)}")
        with opened.explained(texts):
            hydra.show_cfg(opened.config_name, texts, flags.cfg, flags.package, flags.resolve)
    elif flags.info:
        opened.checked_config()
        hydra.show_info(flags.info, opened.config_name, texts)
    return opened.line.has_question
