"""A folder of exported files is written whole or not at all."""

from pathlib import Path

import pytest

from vae_cli.errors import ConfigError, OutputError
from vae_cli.exporting.folder import atomic_folder, check_folder


def test_new_files_take_the_place_of_the_old_ones(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        with atomic_folder(tmp_path / "deep" / "out") as folder:
            (folder / name).write_text("x")
    assert [path.name for path in (tmp_path / "deep" / "out").iterdir()] == ["b.onnx"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]


def test_a_folder_that_is_there_stays_the_one_that_a_shell_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tmp_path.stat().st_ino
    (tmp_path / ".vae-export.1").mkdir()  # of a process that was killed
    check_folder(Path(), ["a.onnx"])
    with atomic_folder(Path()) as folder:
        (folder / "a.onnx").write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["a.onnx"] and tmp_path.stat().st_ino == before


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_fails_leaves_the_old_folder_and_nothing_beside_it(tmp_path, error):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a.onnx").write_text("old")
    with pytest.raises(error), atomic_folder(tmp_path / "out") as folder:
        (folder / "a.onnx").write_text("new")
        raise error
    assert (tmp_path / "out" / "a.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    line = r"output=.*file/out cannot be written \(Not a directory\); name another"
    with pytest.raises(OutputError, match=line), atomic_folder(tmp_path / "file" / "out"):
        pass


def test_a_file_and_a_folder_of_other_things_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        check_folder(tmp_path / "file", ["a.onnx"])
    with pytest.raises(ConfigError, match=r"holds other files \(file\)"):
        check_folder(tmp_path, ["a.onnx"])
    check_folder(tmp_path, ["file", "a.onnx"])
    check_folder(tmp_path / "none", [])
