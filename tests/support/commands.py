"""The commands, run as a person runs them."""

import os
import subprocess
import sys


def vae(command, *arguments, cwd):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    call = [sys.executable, "-m", "vae_cli", command, *arguments]
    return subprocess.run(call, cwd=cwd, env=environment, capture_output=True, text=True, timeout=120)
