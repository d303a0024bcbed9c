"""The way of a command line with `-m` through Hydra's sweepers and launchers to the jobs."""

import os
import shlex
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine
from vae_cli.config.compose import of_one_run, session, to_plain
from vae_cli.config.launch import Check, Config, Job, answer_flags
from vae_cli.config.validation import check as check_config
from vae_cli.config.validation import show
from vae_cli.errors import ConfigError, describe, without_passwords
from vae_cli.runs.reader import RUN_FILES
from vae_cli.sweeps import sweepers
from vae_cli.sweeps.task import Task


def launch_sweep(line: CommandLine, job: Job, check: Check | None = None) -> int:
    """Run a job for every combination of a sweep and return the worst exit status.

    Args:
        line: of `vae-train -m`.
        job: as of `config.launch.launch`; picklable.
        check: of what the jobs have in common, before anything is made on the disk.

    Raises:
        ConfigError: for anything wrong with the command line.
    """
    with session("train", line) as opened:
        if answer_flags(opened):
            return 0
        config = opened.checked_config()
        directory = config.hydra.sweep.dir
        if any((Path(directory) / name).exists() for name in RUN_FILES):
            raise ConfigError(f"sweep={show(directory)} is the directory of a run; name another folder")
        parsed = overrides.parse(line.overrides)
        sweeps_classes = any(o.is_sweep_override() and o.key_or_group.endswith("._target_") for o in parsed)
        if check is not None and not sweeps_classes:  # whose jobs are checked one by one
            check(of_one_run(to_plain(config)), overrides.keys(line.overrides))
        command_line = without_passwords(line.text("train"))
        task = Task(arguments, job, command_line, os.getpid())
        sweepers.register()
        texts = [*overrides.follow_swept_groups(parsed), "hydra.mode=MULTIRUN"]
        with opened.explained(texts, (HydraException, OmegaConfBaseException)):
            try:
                return _worst_status(opened.hydra.multirun(opened.config_name, task, texts))
            except OSError as error:
                what = f"sweep={error.filename} cannot be made ({describe(error)})"
                raise ConfigError(f"{what}; name another folder") from error


def arguments(config: DictConfig) -> tuple[Config, Path, frozenset[str], str]:
    """Return a training's arguments: its checked plain config, directory, overridden keys and command."""
    hydra, plain = HydraConfig.get(), to_plain(config)
    check_config(plain, "train")
    texts: list[Any] = list(hydra.overrides.task)
    text = shlex.join(["vae-train", *texts])
    return of_one_run(plain), Path(hydra.runtime.output_dir), overrides.keys(texts), text


def _worst_status(returned: Any) -> int:
    """Return the worst exit status in what a sweeper returns: its own, or job returns nested by batch."""
    if isinstance(returned, (list, tuple)):
        return max(map(_worst_status, returned), default=0)
    return int((returned.return_value if isinstance(returned, JobReturn) else returned) or 0)
