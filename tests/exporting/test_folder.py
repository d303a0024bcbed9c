"""A folder of exported files is written whole or not at all."""

import os
import subprocess
from pathlib import Path

import pytest

from vae_cli.errors import ConfigError, OutputError
from vae_cli.exporting.folder import atomic_folder, check_folder

NAMES = ["a.onnx", "b.onnx"]


def write(output, names=NAMES, text="x", **files):
    with atomic_folder(output, names) as folder:
        for name in files.get("written", names):
            (folder / name).write_text(text)


def listed(folder):
    return sorted(path.name for path in folder.iterdir())


def test_of_the_files_that_are_asked_for_none_of_an_older_export_stays(tmp_path):
    output = tmp_path / "deep" / "out"
    write(output)
    write(output, text="new", written=["b.onnx"])
    assert listed(output) == ["b.onnx"] and (output / "b.onnx").read_text() == "new"
    assert listed(tmp_path / "deep") == ["out"]


def test_files_that_are_not_asked_for_stay(tmp_path):
    write(tmp_path / "out", ["a.onnx"])
    write(tmp_path / "out", ["b.onnx"])
    assert listed(tmp_path / "out") == NAMES


def test_a_folder_that_is_there_stays_the_one_that_a_shell_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before, ended = tmp_path.stat().st_ino, subprocess.Popen(["true"])
    ended.wait()
    for pid in (ended.pid, os.getpid()):  # of an export that was killed, and of one that runs
        (tmp_path / f".vae-export.{pid}.x").mkdir()
    check_folder(Path(), ["a.onnx"])
    write(Path(), ["a.onnx"])
    assert listed(tmp_path) == [f".vae-export.{os.getpid()}.x", "a.onnx"] and tmp_path.stat().st_ino == before


def test_a_failure_between_two_files_leaves_the_old_ones(tmp_path, monkeypatch):
    write(tmp_path / "out", text="old")
    honest = Path.replace

    moved = []

    def replace(self, target):
        if self.parent.name == "new":
            moved.append(self)
            if len(moved) == 2:
                raise OSError(28, "No space left on device")
        return honest(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OutputError, match="No space left"):
        write(tmp_path / "out", text="new")
    assert [(tmp_path / "out" / name).read_text() for name in NAMES] == ["old", "old"]
    assert listed(tmp_path / "out") == NAMES


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_what_fails_leaves_the_old_folder_and_nothing_beside_it(tmp_path, error):
    write(tmp_path / "out", ["a.onnx"], text="old")
    with pytest.raises(error), atomic_folder(tmp_path / "out", ["a.onnx"]) as folder:
        (folder / "a.onnx").write_text("new")
        raise error
    assert (tmp_path / "out" / "a.onnx").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("x")
    line = r"output=.*file/out cannot be written \(Not a directory\); name another"
    with pytest.raises(OutputError, match=line), atomic_folder(tmp_path / "file" / "out", ["a.onnx"]):
        pass


def test_a_file_and_a_folder_of_other_things_are_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file is a file; name a folder"):
        check_folder(tmp_path / "file", ["a.onnx"])
    with pytest.raises(ConfigError, match=r"holds other files \(file\)"):
        check_folder(tmp_path, ["a.onnx"])
    check_folder(tmp_path, ["file", "a.onnx"])
    check_folder(tmp_path / "none", [])
