"""Contents of directories, and messages about files that are wrong."""

import hashlib

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
