"""The user's cache directory."""

from pathlib import Path

from vae_cli.system.cache import cache_dir


def test_the_cache_directory_is_where_xdg_says_if_that_is_an_absolute_path(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "vae_cli"
    elsewhere = []
    for value in ("relative", ""):
        monkeypatch.setenv("XDG_CACHE_HOME", value)
        elsewhere.append(cache_dir())
    assert elsewhere[0] == elsewhere[1] and elsewhere[0].is_absolute() and elsewhere[0].is_relative_to(Path.home())
