"""Shape annotations are checked at run time in every test; idle threads sleep, as they do in the commands; tests that
run side by side take a core each."""

import os

os.environ.setdefault("GOMP_SPINCOUNT", "20000")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

import tests.support.typechecker  # noqa: E402, F401

CHECKED = ("data", "distributions", "networks", "objectives", "models", "evaluation", "reporting.grids", "noise")

install_import_hook([f"vae_cli.{name}" for name in CHECKED], "tests.support.typechecker.checked")

# Files whose few tests take long: begun first, so that no core waits for another at the end.
LONG = (
    "test_processes",
    "test_extending",
    "test_sample",
    "test_conditional",
    "test_reconstruct",
    "test_run_page",
    "test_samplers",
    "test_evaluate",
    "test_run",
)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.stem not in LONG)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """Name bytes that are no text in captured logs: pytest-xdist can send text alone."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
