"""Tests of sweeps work in an empty folder."""

import pytest

from tests.support.launching import notes  # noqa: F401


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
