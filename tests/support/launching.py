"""Command lines that are launched with a job that notes its arguments."""

import pytest

from vae_cli.config import command_line, launch
from vae_cli.sweeps import launch as sweep_launch


def note(config, directory, overridden, command):
    NOTES.append((config, directory, overridden, command))
    return 0


NOTES: list = []


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOTES.clear()
    return NOTES


def run(argv, job):
    line = command_line.read_command_line(argv)
    return sweep_launch.launch_sweep(line, job) if line.multirun else launch.launch(line, job)


def launched(*argv):
    return run(argv, note)
