"""vae-explore: from its command line to the signal that ends it."""

import os
import re
import signal
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

import vae_cli
from tests.support.commands import status
from tests.support.pages import trained
from vae_cli import cli
from vae_cli.exploring import server


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("runs") / "my run", "report=false")


def fetched(address):
    with urllib.request.urlopen(address, timeout=60) as answer:
        return answer.read().decode()


@contextmanager
def started(run, several, **environment):
    """Start the command with several settings at once, and yield the processes and the addresses that they print."""
    call = [sys.executable, "-m", "vae_cli", "explore", f"checkpoint={run}", "device=cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([*call, *own], env=os.environ | environment, **pipes) for own in several]
    try:
        lines = [process.stdout.readline() for process in processes]
        yield processes, [re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", line)[0] for line in lines]
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_several_at_once_open_addresses_of_their_own_write_nothing_and_end_with_the_signals_status(run, tmp_path):
    def listing():
        return sorted((path, path.stat().st_mtime_ns) for path in run.rglob("*"))

    browser, opened, home = tmp_path / "browser", tmp_path / "opened", tmp_path / "home"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{opened}.part" && mv "{opened}.part" "{opened}"\n')
    browser.chmod(browser.stat().st_mode | stat.S_IXUSR)
    home.mkdir()
    before = listing()
    own = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "cache"), "BROWSER": f"{browser} %s"}
    with started(run, [["open=true"], ["open=false", "port=0"]], **own) as (processes, addresses):
        assert len({address.split("/")[2] for address in addresses}) == 2  # hosts with ports
        assert len({address.split("/")[3] for address in addresses}) == 2  # tokens
        assert all("<title>my run" in fetched(address) for address in addresses)
        first, second = (address.rsplit("/", 2) for address in addresses)
        with pytest.raises(urllib.error.HTTPError, match="404"):
            fetched(f"{first[0]}/{second[1]}/")
        deadline = time.monotonic() + 60
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert opened.read_text().strip() == addresses[0]
        assert listing() == before and list(home.rglob("*")) == []
        for process, number in zip(processes, (signal.SIGINT, signal.SIGTERM)):
            process.send_signal(number)
            assert process.wait(30) == 128 + number
            assert "Traceback" not in process.stderr.read()


def test_a_port_in_use_a_wrong_port_and_a_missing_checkpoint_are_one_line(run, tmp_path, capsys):
    with server.bind(None) as taken:
        port = taken.getsockname()[1]
        assert status(cli.explore, f"checkpoint={run}", f"port={port}") == 1
    for settings in ([f"checkpoint={run}", "port=70000"], [f"checkpoint={tmp_path / 'none'}"], ["open=false"]):
        assert status(cli.explore, *settings) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4 and all(line.startswith("vae-explore: error: ") for line in lines)
    assert f"port={port} cannot be had" in lines[0] and "choose another" in lines[0]
    assert "port accepts null or an integer from 0 to 65535" in lines[1]
    assert "checkpoint=RUN_DIR_OR_FILE is missing" in lines[3]


@pytest.mark.parametrize("package", ["starlette", "uvicorn"])
def test_a_missing_package_is_named_with_the_command_that_installs_it(run, monkeypatch, capsys, package):
    monkeypatch.setattr(vae_cli, "exploring", vae_cli.exploring)  # which the import below replaces
    for name in [name for name in sys.modules if name.startswith((package, "vae_cli.exploring"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [_Without(package), *sys.meta_path])
    assert status(cli.explore, f"checkpoint={run}") == 1
    error = capsys.readouterr().err
    assert error == "vae-explore: error: vae-explore needs starlette and uvicorn: pip install 'vae-cli[explore]'\n"


class _Without:
    """Finds no module of a package."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
