"""Full disks and read-only directories cost a run no more than a checkpoint interval."""

import errno
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from vae_cli.config import compose
from vae_cli.errors import OutputError
from vae_cli.reporting import run_page
from vae_cli.runs import checkpoint, directory, tensor_file
from vae_cli.system.atomic import atomic_write, write_png
from vae_cli.training.run import run as train

SMALL = ["report=false", "epochs=4", "encoder.hidden=[8]", "decoder.hidden=[8]", "latent_dim=2", "sample_every=1"]


def settings(*overrides):
    return compose.compose("train", [*SMALL, *overrides])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("calm") / "run"
    train(settings(), directory)
    return directory


def weights(directory, name="last"):
    return checkpoint.load(directory / "checkpoints" / f"{name}.safetensors")["model"]


def summary(directory):
    return json.loads((directory / "summary.json").read_text())


def go_on(directory):
    train(compose.compose("train", [f"resume={directory}"]), directory, frozenset({"resume"}))


def same(directory, undisturbed):
    a, b = weights(directory), weights(undisturbed)
    lines = [
        [(r["epoch"], r["split"], r["elbo"]) for r in map(json.loads, (d / "metrics.jsonl").read_text().splitlines())]
        for d in (directory, undisturbed)
    ]
    return all(torch.equal(a[key], b[key]) for key in a) and lines[0] == lines[1]


def full():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def failing_from(calls, function, count=None):
    """The function, until it has been called so often, with those that share its count; then there is no room."""
    count = count or itertools.count()

    def act(*arguments, **options):
        if next(count) >= calls:
            raise full()
        return function(*arguments, **options)

    return act


def full_after(saves):
    """Writing files, on a disk that so many of them fit on and half of the next."""
    count = itertools.count()

    @contextmanager
    def write(path, durable=False):
        with atomic_write(path, durable) as temporary:
            if next(count) >= saves:
                temporary.write_bytes(b"half")
                raise full()
            yield temporary

    return write


@pytest.mark.parametrize("saves", [3, *(pytest.param(n, marks=pytest.mark.slow) for n in (1, 2, 6))])
def test_a_disk_that_fills_up_costs_no_checkpoint_and_the_run_goes_on_when_there_is_room(
    saves, undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "atomic_write", full_after(saves))
        with pytest.raises(OutputError, match=r"\.safetensors cannot be written \(No space left.*resume=") as caught:
            train(settings(), tmp_path / "run")
    assert "\n" not in str(caught.value) and summary(tmp_path / "run")["status"] == "failed"
    assert "No space left" in summary(tmp_path / "run")["error"]
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    assert weights(tmp_path / "run")
    go_on(tmp_path / "run")
    assert same(tmp_path / "run", undisturbed)


@pytest.mark.parametrize("lines", [1, *(pytest.param(n, marks=pytest.mark.slow) for n in (0, 5))])
def test_a_line_of_metrics_that_cannot_be_written_ends_the_run_and_nothing_is_lost(
    lines, undisturbed, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        patch.setattr(directory, "json", SimpleNamespace(dumps=failing_from(lines, json.dumps), loads=json.loads))
        with pytest.raises(OutputError, match=r"metrics\.jsonl cannot be written \(No space left.*resume="):
            train(settings(), tmp_path / "run")
    with (tmp_path / "run" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "st')
    go_on(tmp_path / "run")
    assert same(tmp_path / "run", undisturbed)


def test_pictures_curves_and_the_log_never_end_a_training(undisturbed, tmp_path, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise full()

    monkeypatch.setattr("PIL.Image.Image.save", broken)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", broken)
    monkeypatch.setattr(directory._LogFile, "format", broken)
    train(settings(), tmp_path / "run")
    assert summary(tmp_path / "run")["status"] == "completed" and same(tmp_path / "run", undisturbed)
    out, err = capsys.readouterr()
    assert "train.log could not be written" in out and "Traceback" not in out + err


def test_a_file_that_could_not_be_written_is_not_announced(tmp_path, monkeypatch, capsys):
    def broken(*arguments, **options):
        raise full()

    monkeypatch.setattr(run_page, "write", broken)
    monkeypatch.setattr("vae_cli.training.pictures.sample_grid", broken)
    train(settings("epochs=1", "report=true"), tmp_path / "run")
    announced = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("pictures ", "report "))]
    assert announced == [f"pictures    {tmp_path / 'run/reconstructions.png'}"]
    assert not (tmp_path / "run/samples.png").exists() and not (tmp_path / "run/report.html").exists()


def test_a_picture_cut_short_leaves_the_old_one_and_no_litter(tmp_path, monkeypatch):
    from PIL import Image

    picture, path = Image.new("L", (4, 4)), tmp_path / "x.png"
    write_png(path, picture)
    before = path.read_bytes()

    def half(self, file, format):
        Path(file).write_bytes(b"half")
        raise full()

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="No space"):
        write_png(path, picture)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["x.png"]


def can_mount():
    return os.name == "posix" and hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("mount")


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 900 KB, or a skipped test where none can be had."""
    place = tmp_path / "disk"
    place.mkdir()
    done = can_mount() and subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=900k", "tmpfs", place], capture_output=True
    )
    if not done or done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", place], check=False)


COMMAND = [sys.executable, "-m", "vae_cli", "train"]


@pytest.mark.slow
def test_a_really_full_disk(small_disk, tmp_path):
    options = ["epochs=4", "device=cpu", "sample_every=1"]
    done = subprocess.run([*COMMAND, *options, f"hydra.run.dir={small_disk}/run"], capture_output=True, text=True)
    assert done.returncode == 1 and "Traceback" not in done.stderr + done.stdout
    assert "cannot be written (No space left on device)" in done.stderr and "resume=" in done.stderr
    shutil.copytree(small_disk / "run", tmp_path / "run")
    calm = subprocess.run([*COMMAND, *options, f"hydra.run.dir={tmp_path}/calm"], capture_output=True)
    more = subprocess.run([*COMMAND, f"resume={tmp_path}/run"], capture_output=True)
    assert calm.returncode == more.returncode == 0 and same(tmp_path / "run", tmp_path / "calm")


@pytest.mark.slow
def test_a_disk_that_becomes_read_only(small_disk, tmp_path):
    run = small_disk / "run"
    subprocess.run(["mount", "-o", "remount,size=90m", small_disk], check=True)
    command = [*COMMAND, *SMALL[1:], "epochs=100000", "sample_every=0", f"hydra.run.dir={run}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        wait_for(run / "metrics.jsonl")
        process.send_signal(signal.SIGTERM)
        process.communicate()
    assert process.returncode == 143
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    for options in ([f"resume={run}"], [*SMALL, f"hydra.run.dir={small_disk}/other"]):
        done = subprocess.run([*COMMAND, *options], capture_output=True, text=True)
        assert done.returncode == 1 and "Read-only file system" in done.stderr and len(done.stderr.splitlines()) == 1
    assert weights(run)


def wait_for(path):
    end = time.monotonic() + 60
    while not path.exists() and time.monotonic() < end:
        time.sleep(0.05)
