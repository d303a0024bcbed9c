"""The small archives pass for the published ones, on the server."""

import pytest

from tests.support.archives import MEMBERS, made, put, tarred, trust
from vae_cli.data import CIFAR10


@pytest.fixture(autouse=True)
def site(server, monkeypatch):
    """The server that has every set's archives."""
    for dataset, files in made().items():
        trust(monkeypatch, dataset, files, server)
        server.files |= files
    return server


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
