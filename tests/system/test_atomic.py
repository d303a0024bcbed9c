"""Files that are written whole or not at all."""

import os

import pytest

from vae_cli.system.atomic import atomic_write


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_the_place_of_the_old_one_at_the_end(tmp_path, durable):
    path = tmp_path / "deep" / "x.txt"
    for text in ("old", "new"):
        with atomic_write(path, durable) as temporary:
            temporary.write_text(text)
            assert not path.exists() or path.read_text() == "old"
        assert path.read_text() == text
    assert [p.name for p in path.parent.iterdir()] == ["x.txt"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, error):
    (tmp_path / "x").write_text("old")
    with pytest.raises(error), atomic_write(tmp_path / "x") as temporary:
        temporary.write_text("half")
        raise error
    assert (tmp_path / "x").read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["x"]


def test_an_error_of_the_system_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "file" / "x"):
        pass
    assert str(tmp_path / "file") in str(caught.value.filename)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError) as caught, atomic_write(tmp_path / "x", durable=True) as temporary:
        temporary.write_text("whole")
    assert caught.value.filename == str(tmp_path / "x") and [p.name for p in tmp_path.iterdir()] == ["file"]
