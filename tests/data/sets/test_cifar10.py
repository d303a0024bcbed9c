"""CIFAR-10: its batches, and pickles with something else in mind."""

import os
import pickle
import struct

import numpy as np
import pytest

from tests.support.archives import MEMBERS, cifar_batch, cifar_members, put, python2_pickle, tarred, trust
from tests.support.files import error_of, write
from vae_cli.data import CIFAR10

ARCHIVE = MEMBERS[CIFAR10][0]


@pytest.fixture
def with_members(tmp_path, monkeypatch):
    """Write an archive with these members that passes for the published one; return how to load it."""

    def load(members, links=None):
        files = {ARCHIVE: tarred(members, links)}
        trust(monkeypatch, CIFAR10, files)
        put(CIFAR10, tmp_path / "data", files)
        return CIFAR10(str(tmp_path / "data")).load

    return load


def test_five_batches_in_order_and_a_test_batch(tmp_path):
    put(CIFAR10, tmp_path)
    source = CIFAR10(str(tmp_path)).load()
    batches = [cifar_batch(number) for number in range(6)]
    assert np.array_equal(source.train.values.reshape(-1, 3072), np.concatenate([data for data, _ in batches[:5]]))
    assert source.train.labels.tolist() == sum((labels for _, labels in batches[:5]), [])
    assert np.array_equal(source.test.values.reshape(-1, 3072), batches[5][0])
    assert source.test.labels.tolist() == batches[5][1]


def test_an_archive_that_lacks_a_batch_is_named(tmp_path, with_members):
    kept = {name: content for name, content in cifar_members().items() if not name.endswith("_4")}
    assert f"{tmp_path / 'data' / ARCHIVE} cannot be read" in error_of(with_members(kept))


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


def test_a_link_in_the_tar_file_is_not_followed_out_of_it(tmp_path, with_members):
    members, first = cifar_members(), "cifar-10-batches-py/data_batch_1"
    write(tmp_path, {"secret": members.pop(first)})
    assert "cannot be read" in error_of(with_members(members, {first: str(tmp_path / "secret")}))
