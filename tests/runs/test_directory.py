"""The run directory: another training in it is refused, and a failing write ends the run or is reported."""

import json
import shutil

import pytest

from tests.support.training import settings
from vae_cli.errors import OutputError, UserError
from vae_cli.runs.directory import RunDirectory, log
from vae_cli.training import loop
from vae_cli.training.run import run as train


def test_a_directory_with_a_training_in_it_is_left_alone(digits_run):
    before = {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}
    with pytest.raises(UserError, match="holds a training already"):
        train(settings(), digits_run)
    assert before == {path: path.stat().st_mtime_ns for path in digits_run.rglob("*")}


def test_a_directory_that_vanishes_ends_the_run_with_one_line(tmp_path, monkeypatch):
    original = loop._report

    def vanish(training, validation, output):
        if training.position.epoch == 2:
            shutil.rmtree(output.path)
        return original(training, validation, output)

    monkeypatch.setattr(loop, "_report", vanish)
    with pytest.raises(OutputError, match=r"cannot be written \(No such file or directory\)") as caught:
        train(settings(), tmp_path / "run")
    assert "hydra.run.dir=" in str(caught.value)


def test_a_log_that_cannot_be_opened_does_not_end_a_training_and_a_summary_does(tmp_path, capsys):
    (tmp_path / "run" / "train.log").mkdir(parents=True)
    train(settings(), tmp_path / "run")
    assert "train.log could not be written" in capsys.readouterr().out
    (tmp_path / "other" / "summary.json").mkdir(parents=True)
    with pytest.raises(OutputError, match=r"summary\.json cannot be written"):
        train(settings(), tmp_path / "other")


def test_a_warning_is_a_labeled_paragraph_on_the_terminal_one_line_in_the_log_and_once_in_the_summary(tmp_path, capsys):
    text = "every code is the same: " + "the decoder does not listen " * 4 + "and\nwill not"
    with RunDirectory(tmp_path / "run") as output:
        output.warn(text)
        output.warn(text)
        output.end("completed")
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("warning     every code") and max(map(len, printed)) <= 80
    assert all(line.startswith(" " * 12) and line[12] != " " for line in printed[1:3])
    one_line = text.replace("\n", " ")
    assert f"WARNING {one_line}\n" in (tmp_path / "run" / "train.log").read_text()
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"] == [one_line]


def test_the_summary_of_a_run_that_nothing_was_amiss_with_has_no_warnings(tmp_path):
    with RunDirectory(tmp_path) as output:
        output.end("completed")
    assert json.loads((tmp_path / "summary.json").read_text())["warnings"] == []


def test_warnings_are_the_last_lines_where_they_do_not_scroll_away(tmp_path, capsys):
    with RunDirectory(tmp_path / "run") as output:
        output.warn("one")
        log.warning("two")
        log.info("epoch  1/1")
    assert " ".join(capsys.readouterr().out.split()) == "warning two epoch 1/1 warning one warning two"


def test_a_picture_that_could_not_be_written_is_in_the_summary(tmp_path):
    with RunDirectory(tmp_path / "run") as output:
        output.picture("samples", lambda: 1 / 0, 0)
        output.end("completed")
    (warning,) = json.loads((tmp_path / "run" / "summary.json").read_text())["warnings"]
    assert warning.startswith("samples.png could not be written")


def test_a_long_path_is_printed_on_one_line_and_long_words_keep_theirs(tmp_path, capsys):
    path = tmp_path / " ".join(["folder"] * 15)
    with RunDirectory(tmp_path / "run"):
        log.info("run         %s", path)
        log.info("note        %s is there", "x" * 90)
        log.info("epoch  3/20  " + "elbo 1  " * 12)
    assert capsys.readouterr().out.splitlines() == [
        f"run         {path}",
        f"note        {'x' * 90}",
        "            is there",
        "epoch  3/20  " + "elbo 1  " * 12,
    ]
