"""Errors as one line and an exit status."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import install, status
from vae_cli import cli
from vae_cli.errors import DataError


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (DataError("x.npz: no\nsuch file"), "x.npz: no such file"),
        (PermissionError(13, "Permission denied", "/a/b"), "/a/b: Permission denied"),
        (OSError("disk gone"), "disk gone"),
        (DataError("of format a\x1b]0;b\x07"), "of format a\\x1b]0;b\\x07"),
        (DataError("x" * 10_000), "x" * 1999 + "…"),
        (KeyError("k"), "unexpected KeyError: 'k' (VAE_TRACEBACK=1 shows where)"),
        (RuntimeError("first\nsecond"), "unexpected RuntimeError: first (VAE_TRACEBACK=1 shows where)"),
    ],
)
def test_whatever_a_job_raises_is_one_line(error, answer, capsys, monkeypatch):
    def run(*_):
        raise error

    install(monkeypatch, "commands.sample", run)
    assert status(cli.sample, "checkpoint=x") == 1
    assert capsys.readouterr() == ("", f"vae-sample: error: {answer}\n")


@pytest.mark.parametrize("variable", ["VAE_TRACEBACK", "HYDRA_FULL_ERROR"])
def test_a_traceback_is_shown_on_request(variable, capsys, monkeypatch):
    monkeypatch.setenv(variable, "1")
    assert status(cli.train, "latent_dim=0") == 1
    err = capsys.readouterr().err
    assert err.startswith("Traceback")
    assert err.endswith("vae-train: error: latent_dim=0: latent_dim accepts an integer of at least 1\n")


@pytest.mark.parametrize("is_ignored", [False, True])
def test_a_hangup_ends_a_command_unless_it_is_ignored_as_under_nohup(is_ignored, monkeypatch):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN if is_ignored else signal.SIG_DFL)
    try:
        install(monkeypatch, "commands.sample", lambda _: signal.raise_signal(signal.SIGHUP))
        assert status(cli.sample, "checkpoint=x") == (0 if is_ignored else 129)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_closed_pipe_is_quiet():
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        argv = [sys.executable, "-m", "vae_cli", "train", "--help"]
        ended = subprocess.run(argv, stdout=pipe, stderr=subprocess.PIPE)
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_an_answer_that_finds_no_room_is_an_error_of_one_line():
    with Path("/dev/full").open("wb") as full:
        argv = [sys.executable, "-m", "vae_cli", "train", "--help"]
        ended = subprocess.run(argv, stdout=full, stderr=subprocess.PIPE, text=True)
    line = "vae-train: error: standard output cannot be written (No space left on device)\n"
    assert (ended.returncode, ended.stderr) == (1, line)
