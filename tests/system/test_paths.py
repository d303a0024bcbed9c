"""Paths as a person writes them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.files import homeless  # noqa: F401
from vae_cli.errors import UserError
from vae_cli.system.paths import expand, provide_home


def test_a_tilde_is_the_home_directory_or_a_name_of_its_own(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expand("~/data") == Path("/home/me/data") and expand("a/~b") == Path("a/~b")
    assert expand("~nobody-of-this-name/x") == Path("~nobody-of-this-name/x")


def test_a_home_directory_is_left_as_it_is(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    provide_home()
    assert os.environ["HOME"] == "/home/me"


def test_who_has_no_home_directory_gets_a_private_temporary_one(homeless):  # noqa: F811
    for _ in range(2):
        provide_home()
    assert Path.home() == homeless and homeless.stat().st_mode & 0o777 == 0o700


def test_a_temporary_home_that_another_user_made_is_refused(homeless, tmp_path):  # noqa: F811
    homeless.symlink_to(tmp_path)
    with pytest.raises(UserError, match=r"belongs to another user; name a directory of yours with HOME="):
        provide_home()


def test_charts_can_be_imported_without_a_home_directory(homeless):  # noqa: F811
    code = (
        "import pwd; pwd.getpwuid = lambda _: {}[0]; from vae_cli.system.paths import provide_home; provide_home();"
        "import altair"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
