"""The way of `vae-train -m …` from its checked command line through Hydra to a sweeper."""

from __future__ import annotations

from functools import partial

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from vae_cli import errors
from vae_cli.config import overrides
from vae_cli.config.command_line import CommandLine
from vae_cli.config.compose import _checked, _explaining, _session, to_plain
from vae_cli.config.launch import Job, _arguments, _completes, _making_folders, _shows, _statuses, _typed
from vae_cli.sweeps import sweepers


def launch(line: CommandLine, job: Job) -> int:
    """Train once for every combination of the swept values; the exit status of the sweep.

    Args:
        line: the command line, with `-m`.
        job: trains one model: its config, run directory, overridden keys and command; a picklable function.

    Raises:
        ConfigError: for a mistake in the command line, before anything is written.
    """
    with _session("train", line) as session:
        if _completes(session):
            return 0
        to_plain(_checked(session))
        if _shows(session):
            return 0
        texts = overrides.follow_swept_groups(overrides.parse(line.overrides))
        command = errors.without_passwords(_typed("train", ["-m", *line.overrides]))
        guard = partial(errors.guard, "vae-train")
        task = sweepers.Task(partial(_arguments, command="train"), job, guard, "train", command)
        sweepers.register()
        with _explaining(session, texts, (HydraException, OmegaConfBaseException)), _making_folders(True):
            returned = session.hydra.multirun(session.name, task, [*texts, "hydra.mode=MULTIRUN"])
    return max(_statuses(returned), default=0)
