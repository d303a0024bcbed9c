"""The user's cache directory."""

from pathlib import Path

from tests.support.files import homeless  # noqa: F401
from vae_cli.system.cache import cache_dir


def test_the_cache_directory_is_where_xdg_says_if_that_is_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "vae_cli"
    elsewhere = []
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        elsewhere.append(cache_dir())
    assert elsewhere[0] == elsewhere[1] and elsewhere[0].is_absolute() and elsewhere[0].is_relative_to(Path.home())


def test_without_a_home_directory_the_cache_is_in_a_private_temporary_one(homeless):  # noqa: F811
    assert cache_dir() == homeless / ".cache/vae_cli"
