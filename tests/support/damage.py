"""Damaged and hostile checkpoints: how they are made, and what opening one costs."""

import copy
import json
import time
from pathlib import Path

import pytest

from vae_cli.config import compose
from vae_cli.errors import UserError
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

LONGEST = 20  # seconds


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """A small run with an average of the weights, stopped in the middle."""
    directory = tmp_path_factory.mktemp("run") / "run"
    overrides = ["epochs=1", "latent_dim=2", "encoder.hidden=[6]", "decoder.hidden=[6]", "ema_decay=0.9"]
    train(compose.compose("train", [*overrides, "scheduler=cosine", "report=false"]), directory)
    (directory / "summary.json").unlink()
    return directory


@pytest.fixture(scope="session")
def good(run):
    return (run / "checkpoints" / "last.safetensors").read_bytes()


@pytest.fixture(scope="session")
def contents(run):
    return checkpoint.load(run / "checkpoints" / "last.safetensors")


def peak(anew=False):
    """Return the peak memory in bytes since the last call with `anew`; 0 where the system does not tell it."""
    try:
        if anew:
            Path("/proc/self/clear_refs").write_text("5")
        status = Path("/proc/self/status").read_text()
    except OSError:
        return 0
    return 1024 * int(status.partition("VmHWM:")[2].split()[0])


def answer(path, act):
    """Return the one line with which a file is refused, or None if it opens; no other error than a UserError passes."""
    began = time.monotonic()
    try:
        act(path)
    except UserError as error:
        message = str(error)
        assert "\n" not in message and str(path) in message, message
        return message
    finally:
        assert time.monotonic() - began < LONGEST
    return None


def flipped(data, rng):
    for at in rng.integers(0, len(data), int(rng.integers(1, 5))):
        data[at] ^= 1 << int(rng.integers(8))
    return data


def overwritten(data, rng):
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 2000))
    data[at : at + length] = rng.bytes(min(length, len(data) - at))
    return data


def zeroed(data, rng):
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 5000))
    data[at : at + length] = bytes(min(length, len(data) - at))
    return data


def inserted(data, rng):
    at = int(rng.integers(len(data)))
    data[at:at] = rng.bytes(int(rng.integers(1, 100)))
    return data


def removed(data, rng):
    at = int(rng.integers(len(data)))
    del data[at : at + int(rng.integers(1, 100))]
    return data


def swapped(data, rng):
    a, b = sorted(int(at) for at in rng.integers(0, len(data) - 600, 2))
    data[a : a + 500], data[b : b + 500] = data[b : b + 500], data[a : a + 500]
    return data


def truncated(data, rng):
    return data[: int(rng.integers(len(data)))]


def lengthened(data, rng):
    return data + rng.bytes(int(rng.integers(1, 5000)))


def doubled(data, rng):
    return data + data[int(rng.integers(len(data))) :]


def in_the_header(data, rng):
    """Damage to the header alone."""
    length = 8 + int.from_bytes(data[:8], "little")
    for at in rng.integers(0, length, int(rng.integers(1, 4))):
        data[at] = int(rng.integers(256))
    return data


def renamed(data, rng):
    """Two tensors' names, exchanged in the header."""
    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(bytes(data[8:length]))
    names = [name for name in header if name != "__metadata__"]
    a, b = (names[int(at)] for at in rng.choice(len(names), 2, replace=False))
    header[a], header[b] = header[b], header[a]
    text = json.dumps(header).encode()
    return bytearray(len(text).to_bytes(8, "little") + text) + data[length:]


BYTES_OF_ANY_FILE = [
    flipped,
    overwritten,
    zeroed,
    inserted,
    removed,
    swapped,
    truncated,
    lengthened,
    doubled,
]
BYTES = [*BYTES_OF_ANY_FILE, in_the_header, renamed]  # of a checkpoint


def replaced(contents, path, value):
    changed = copy.deepcopy(contents)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = value
    return changed


def resumed(directory, *more):
    """Resume a run; return the one line with which that is refused, or None."""
    settings = compose.compose("train", [f"resume={directory}", *more])
    overridden = ["resume", *(override.partition("=")[0] for override in more)]
    try:
        train(settings, directory, frozenset(overridden))
    except UserError as error:
        assert "\n" not in str(error)
        return str(error)
    return None


def nested(depth):
    value = [1]
    for _ in range(depth):
        value = [value]
    return value


def store(contents, path):
    """Write contents, changed or not, as a checkpoint of their own."""
    (checkpoint.save_weights if contents["optimizer"] is None else checkpoint.save)(path, contents)
