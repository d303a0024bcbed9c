"""The run directory: another training in it is refused, and a failing write ends the run or is reported."""

import shutil

import pytest

from tests.support.training import settings
from vae_cli.errors import OutputError, UserError
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
