"""A small trained model, and one of labels."""

import pytest

from tests.support.generation import run_of


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    return run_of(tmp_path_factory)


@pytest.fixture(scope="session")
def labeled(tmp_path_factory):
    return run_of(tmp_path_factory, "conditional=true")
