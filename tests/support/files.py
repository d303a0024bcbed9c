"""Contents of directories, messages about files that are wrong, and a machine without a home directory."""

import hashlib
import os
import pwd
import tempfile

import pytest

from vae_cli.errors import DataError


def md5(content):
    return f"md5:{hashlib.md5(content).hexdigest()}"


def write(folder, files):
    """Write files by name; return their directory."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def contents(folder):
    """The files below a directory, by path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def error_of(load, kind=DataError):
    """The message of the error that `load` raises: one line."""
    with pytest.raises(kind) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


@pytest.fixture
def homeless(monkeypatch, tmp_path):
    """No HOME and no account, as in a container for a user's number alone; where the temporary home is."""

    def unknown(_):
        raise KeyError

    monkeypatch.delenv("HOME")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"vae_cli-{os.getuid()}"
