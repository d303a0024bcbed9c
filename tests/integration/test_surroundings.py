"""Commands in surroundings that lack something: a stream, a character, a reader, a home, a name that is text."""

import logging
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.commands import status
from tests.support.files import homeless  # noqa: F401
from tests.support.training import NARROW, SMALL, digits_run  # noqa: F401
from vae_cli import cli
from vae_cli.reporting import page

TRAIN = [*SMALL, *NARROW, "epochs=1", "sample_every=0"]
NAME = os.fsdecode(b"caf\xe9 \xff")  # which no UTF-8 is


@pytest.fixture
def folder(digits_run, tmp_path, monkeypatch):  # noqa: F811
    """An empty working directory with a run and an image."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(digits_run, "run")
    os.mkdir("images")  # noqa: PTH102
    Image.fromarray(np.zeros((8, 8), np.uint8)).save("images/0.png")
    return tmp_path


def run_all(name, checkpoint):
    """Run every command so that it writes files of this name; return their exit statuses."""
    lines = {
        "train": [*TRAIN, f"hydra.run.dir={name}"],
        "evaluate": [f"checkpoint={checkpoint}", "limit=20", f"output={name}.json"],
        "sample": [f"checkpoint={checkpoint}", "n=4", f"output={name}.png"],
        "reconstruct": [f"checkpoint={checkpoint}", "input=images", f"output={name}-r.png"],
        "encode": [f"checkpoint={checkpoint}", "input=images", f"output={name}.npz"],
        "compare": [checkpoint, f"output={name}-c"],
    }
    statuses = {command: status(getattr(cli, command), *words) for command, words in lines.items()}
    statuses["sweep"] = status(cli.train, "-m", *TRAIN, "latent_dim=2", f"sweep={name}-s")
    return statuses


def written(name):
    """The last files of all commands that have been written."""
    files = (f"{name}/summary.json", f"{name}.json", f"{name}.png", f"{name}-r.png", f"{name}.npz")
    files += (f"{name}-c/comparison.html", f"{name}-s/*/summary.json", f"{name}-s/sweep.csv")
    return {file: any(Path().glob(file)) for file in files}


@pytest.fixture
def streams(monkeypatch):
    """Makes files or nothing the standard output and error that this process was started with."""
    monkeypatch.setattr(logging.root, "handlers", [])  # of other tests, on streams that are closed

    def use(stream):
        for name in ("stdout", "stderr"):
            monkeypatch.setattr(sys, name, stream)
            monkeypatch.setattr(sys, f"__{name}__", stream)

    return use


def test_characters_that_the_terminal_lacks_end_no_command(streams, folder):
    with (folder / "out").open("w", encoding="ascii") as out:
        streams(out)
        assert set(run_all("x", "run").values()) == {0} and status(cli.train, "--help") == 0
        sys.stdout.flush()
    assert all(written("x").values())
    text = (folder / "out").read_text(encoding="ascii")
    assert "8?8" in text and "Traceback" not in text and "vae-train dataset=mnist" in text


def test_closed_streams_end_no_command(streams, monkeypatch, folder):
    streams(None)
    monkeypatch.setattr(sys, "stdin", None)
    assert set(run_all("x", "run").values()) == {0} and all(written("x").values())


def test_a_reader_that_has_gone_keeps_no_command_from_its_files(streams, folder):
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as out:
        streams(out)
        statuses = run_all("x", "run")
    assert statuses.pop("train") == statuses.pop("sweep") == 0 and set(statuses.values()) == {1}
    assert all(written("x").values())


def test_a_name_that_is_no_text_is_as_good_as_another(streams, folder):
    shutil.move("run", f"run {NAME}")
    with (folder / "out").open("w") as out:
        streams(out)
        assert set(run_all(NAME, f"run {NAME}").values()) == {0} and all(written(NAME).values())
    # TensorBoard alone cannot have such a folder
    notes = {line for line in (folder / "out").read_text().splitlines() if "could not be written" in line}
    assert all(note.startswith("warning") and "TensorBoardLogger" in note for note in notes)


def test_images_and_arrays_of_such_a_name_train_and_are_scored(streams, folder, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    pixels = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.save(f"{NAME}.npy", pixels)
    os.mkdir(NAME)  # noqa: PTH102
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(f"{NAME}/{number:02d}.png")
    with (folder / "out").open("w") as out:
        streams(out)
        for dataset, path in (("arrays", f"{NAME}.npy"), ("folder", NAME)):
            own = [f"dataset={dataset}", f"dataset.path={path}", *(["dataset.image_size=8"] * (dataset == "folder"))]
            assert status(cli.train, *TRAIN, *own, f"hydra.run.dir={dataset}") == 0
            assert status(cli.evaluate, f"checkpoint={dataset}", "limit=4", "num_importance_samples=2") == 0
            assert status(cli.train, f"resume={dataset}", "epochs=2") == 0
    assert "could not be written" not in (folder / "out").read_text()


def test_without_a_home_directory_a_run_is_whole(homeless, tmp_path, monkeypatch, capsys):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    page.javascript.cache_clear()
    assert status(cli.train, *TRAIN, "report=true", "hydra.run.dir=run") == 0
    out = capsys.readouterr().out
    assert f"report      {tmp_path / 'run/report.html'}\n" in out and "could not be written" not in out
    assert Path("run/report.html").exists() and list(homeless.glob(".cache/vae_cli/vl-convert*"))
