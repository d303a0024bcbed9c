"""A cache of each test's own, no proxy, and a server for downloads."""

import pytest

from tests.support.file_server import serve


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def server():
    with serve() as running:
        yield running
