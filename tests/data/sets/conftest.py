"""The small archives pass for the published ones, on the server."""

import pytest

from tests.support.archives import made, trust


@pytest.fixture(autouse=True)
def site(server, monkeypatch):
    """The server that has every set's archives."""
    for dataset, files in made().items():
        trust(monkeypatch, dataset, files, server)
        server.files |= files
    return server
