"""dataset.path=: the data of a training at another place, or other data, for every command that takes images."""

import json

import numpy as np
import pytest

from tests.support.commands import status
from tests.support.image_commands import WIDE, encoded, reconstructed
from vae_cli import cli
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError
from vae_cli.training.run import run as train


def run_of(directory, *settings):
    assert train(compose.compose("train", [*WIDE, "epochs=1", *settings]), directory) == 0
    return directory


@pytest.fixture
def moved(folder, tmp_path):
    """A run that held out three images of a folder, what its commands wrote, and where the folder is now."""
    small = ["dataset.image_size=8", "dataset.channels=1", "dataset.validation=3", "batch_size=4"]
    run = run_of(tmp_path / "run", "dataset=folder", f"dataset.path={folder}", *small)
    before = outputs(run, tmp_path)
    return run, before, folder.rename(tmp_path / "moved, with = and é")


def walked(run, tmp_path, *settings):
    output = tmp_path / "walk.npz"
    sample.run(compose.compose("sample", [f"checkpoint={run}", "format=npz", f"output={output}", *settings]))
    with np.load(output) as archive:
        return archive["images"]


WAYS = {
    "interpolate": ["mode=interpolate", "between=[0,0]", "steps=2"],
    "traverse": ["mode=traverse", "around=0", "n=1", "steps=2"],
    "gmm": ["n=2", "sampler=gmm", "components=2"],
    "aggregate": ["n=2", "sampler=aggregate"],
}


def outputs(run, tmp_path, *settings):
    """Return what the commands make of the model's data."""
    made = {name: walked(run, tmp_path, *words, *settings) for name, words in WAYS.items()}
    for split in ("train", "validation", "test"):
        made |= {f"{split} {k}": v for k, v in encoded(run, tmp_path, f"input={split}", *settings).items()}
    with np.load(reconstructed(run, tmp_path / "r.npz", "format=npz", *settings)) as archive:
        return made | {"reconstructions": archive["images"]}


def test_data_that_were_moved_give_what_they_gave(moved, tmp_path, capsys):
    run, before, place = moved
    after = outputs(run, tmp_path, f"dataset.path={place}")
    assert after.keys() == before.keys() and len(before["validation mean"]) == 3
    for name, values in before.items():
        np.testing.assert_array_equal(after[name], values, err_msg=name)
    for command in ("encode", "reconstruct", "evaluate", "sample"):
        words = ["mode=traverse"] if command == "sample" else []
        capsys.readouterr()
        assert status(getattr(cli, command), f"checkpoint={run}", *words) == 1
        error = capsys.readouterr().err
        assert "which the model was trained on, does not exist here; set dataset.path= to" in error
        assert error.count("\n") == 1


def test_an_evaluation_of_the_moved_data_is_the_runs_own(moved, capsys):
    run, _, place = moved
    few = [f"checkpoint={run}", "num_importance_samples=2"]
    assert status(cli.evaluate, *few, f"dataset.path={place}") == 0
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["path"] is None and kept["elbo"]["n"] == 1
    (place / "a" / "01.png").unlink()
    capsys.readouterr()
    assert status(cli.evaluate, *few, f"dataset.path={place}") == 0
    assert "evaluation.json is for the data of the training" in capsys.readouterr().err
    assert json.loads((run / "evaluation.json").read_text()) == kept


def test_arrays_are_read_at_another_place_with_the_white_of_the_training(digits, tmp_path, capsys):
    deep = digits[0][:40].astype(np.uint16) * 16
    np.savez(tmp_path / "mine.npz", train=deep)
    own = ["dataset=arrays", "dataset.range=4080", "dataset.validation=0", "batch_size=8"]
    run = run_of(tmp_path / "run", f"dataset.path={tmp_path / 'mine.npz'}", *own)
    expected = encoded(run, tmp_path)["mean"]
    moved = (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    capsys.readouterr()
    np.testing.assert_array_equal(encoded(run, tmp_path, f"dataset.path={moved}")["mean"], expected)
    assert "note: the value of white is 4080, as in the training" in capsys.readouterr().err
    np.savez(tmp_path / "bytes.npz", digits[0][:40])
    codes = [encoded(run, tmp_path, f"input={path}")["mean"] for path in (moved, tmp_path / "bytes.npz")]
    np.testing.assert_array_equal(*codes)
    np.savez(tmp_path / "larger.npz", deep * 2)
    with pytest.raises(DataError, match="dataset.range=4080 of the training; rescale or clip them"):
        encoded(run, tmp_path, f"input={tmp_path / 'larger.npz'}")


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("sample", [], "no data are needed here; it goes with sampler=gmm"),
        ("sample", ["mode=manifold"], "no data are needed here"),
        ("sample", ["mode=interpolate"], "no data are needed here"),
        ("encode", ["input=other"], "input=other names the images already"),
        ("reconstruct", ["input=other"], "input=other names the images already"),
    ],
)
def test_a_path_that_nothing_would_be_read_from_is_refused(command, words, message, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    assert status(getattr(cli, command), f"checkpoint={run}", *words, "dataset.path=photos") == 1
    error = capsys.readouterr().err
    assert f"dataset.path=photos: {message}" in error and error.count("\n") == 1


@pytest.mark.parametrize("value", ["", " ", "null"])
def test_an_empty_path_is_refused_and_null_is_none(value, run, tmp_path):
    if value == "null":
        assert len(encoded(run, tmp_path, "limit=2", f"dataset.path={value}")["mean"]) == 2
        return
    with pytest.raises(ConfigError, match="dataset.path accepts a path"):
        encoded(run, tmp_path, f"dataset.path={value}")


def test_other_keys_of_a_data_set_are_unknown_without_advice_to_choose_one(run, capsys):
    assert status(cli.encode, f"checkpoint={run}", "dataset.range=3") == 1
    error = capsys.readouterr().err
    assert "unknown key dataset.range" in error and "dataset=" not in error and error.count("\n") == 1


def test_an_export_is_checked_on_moved_data_and_says_when_they_are_not_there(moved, tmp_path, capsys):
    run, _, place = moved
    words = [f"checkpoint={run}"]
    assert (
        status(
            cli.export, *words, "format=torch", f"output={tmp_path / 'out'}", "parts=decoder", f"dataset.path={place}"
        )
        == 0
    )
    assert "checked on test images" in capsys.readouterr().out
    for wrong in (["format=torch", f"dataset.path={tmp_path / 'nowhere'}"], ["format=hub", f"dataset.path={place}"]):
        assert status(cli.export, *words, *wrong) == 1
        assert "dataset.path" in capsys.readouterr().err
