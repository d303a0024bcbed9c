"""The commands, run as a person runs them."""

import os
import subprocess
import sys
from types import ModuleType

import pytest


def vae(command, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    call = [sys.executable, "-m", "vae_cli", command, *arguments]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)


def install(monkeypatch, name, run):
    module = ModuleType(f"vae_cli.{name}")
    module.run = run
    monkeypatch.setitem(sys.modules, f"vae_cli.{name}", module)
    monkeypatch.setattr(f"vae_cli.{name}", module, raising=False)


def status(command, *argv):
    with pytest.raises(SystemExit) as caught:
        command(list(argv))
    return caught.value.code
