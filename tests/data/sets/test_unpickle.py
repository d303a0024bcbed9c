"""Pickles that ask for code run nothing."""

import os
import pickle
import struct

import pytest

from tests.support.archives import MEMBERS, cifar_members, python2_pickle
from tests.support.files import error_of
from vae_cli.data import CIFAR10

ARCHIVE = MEMBERS[CIFAR10][0]


class Payload:
    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


def malicious(kind, trap):
    """A pickle that makes a file if it is let."""
    command = f"touch {trap}"
    if kind == "protocol 4":
        return pickle.dumps(Payload(command), protocol=4)
    asked = {"os": b"cos\nsystem\n", "posix": b"cposix\nsystem\n", "numpy": b"cnumpy.testing\nrundocs\n"}[kind]
    call = asked + b"X" + struct.pack("<I", len(command)) + command.encode() + b"\x85R"
    return python2_pickle({"labels": [0], "data": call})


@pytest.mark.parametrize("kind", ["os", "posix", "numpy", "protocol 4"])
@pytest.mark.parametrize("batch", ["data_batch_1", "test_batch"])
def test_a_pickle_that_asks_for_a_shell_runs_nothing(tmp_path, with_members, kind, batch):
    trap = tmp_path / "trap"
    load = with_members(cifar_members() | {f"cifar-10-batches-py/{batch}": malicious(kind, trap)})
    message = error_of(load)
    assert "its pickle asks for " in message and str(tmp_path / "data" / ARCHIVE) in message
    assert not trap.exists()


def test_a_pickle_that_is_no_batch_is_not_opened(tmp_path, with_members):
    trap = tmp_path / "trap"
    load = with_members(cifar_members() | {"cifar-10-batches-py/batches.meta": malicious("os", trap)})
    assert len(load().train) == 20 and not trap.exists()
