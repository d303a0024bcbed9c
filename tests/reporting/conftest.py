"""Runs and their comparison, which several files of tests look at."""

import pytest

from tests.support.pages import sweep_of_five
from vae_cli.commands import compare
from vae_cli.config import compose


@pytest.fixture(scope="session")
def sweep(tmp_path_factory):
    with sweep_of_five(tmp_path_factory.mktemp("sweep")) as folder:
        yield folder


@pytest.fixture(scope="session")
def compared(sweep, tmp_path_factory):
    """The folder of their comparison."""
    folder = tmp_path_factory.mktemp("compared")
    compare.run([str(sweep)], compose.compose("compare", [f"output={folder}"]))
    return folder
