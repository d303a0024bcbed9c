"""The cache of decoded images."""

import os
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.support.pictures import load, noise, picture, put
from vae_cli.data import decoded
from vae_cli.errors import DataError


def no_decoding(monkeypatch):
    def fail(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded, "_make", fail)


def test_a_second_start_maps_what_the_first_decoded(tmp_path, monkeypatch, capsys):
    put(tmp_path / "x", "a/1.png", "b/2.png", image=noise())
    first = load(tmp_path / "x")
    assert "decoding 2 images into" in capsys.readouterr().err
    no_decoding(monkeypatch)
    second = load(tmp_path / "x")
    assert isinstance(second.train.values, np.memmap) and np.array_equal(first.train.values, second.train.values)
    assert capsys.readouterr() == ("", "")
    assert not list((tmp_path / "x").glob(".*")), "nothing is written beside the images"


@pytest.mark.parametrize("change", ["added", "removed", "replaced", "touched", "size", "channels"])
def test_a_change_is_seen_and_old_states_do_not_pile_up(tmp_path, change):
    root = tmp_path / "x"
    put(root, "a.png", "b.png")
    load(root)
    options = {"size": 16}
    if change == "added":
        put(root, "c.png")
    elif change == "removed":
        (root / "b.png").unlink()
    elif change == "replaced":
        put(root, "a.png", image=picture(value=(1, 2, 3)))
    elif change == "touched":
        os.utime(root / "a.png", (1, 1))
    else:
        options = {"size": 8} if change == "size" else {"channels": 1}
    images = load(root, **options).train.values
    assert len(images) == {"added": 3, "removed": 1}.get(change, 2)
    if change == "replaced":
        assert images[0, :, 0, 0].tolist() == [1, 2, 3]
    places = list((tmp_path / "cache" / "vae_cli" / "decoded").iterdir())
    assert len(places) == (2 if change in ("size", "channels") else 1)
    assert all(len(list(place.glob("*.bytes"))) == 1 for place in places)


@pytest.mark.parametrize("damage", ["cut", "no index", "broken index", "killed"])
def test_a_cache_that_is_not_whole_is_made_anew(tmp_path, damage):
    put(tmp_path / "x", "a.png", "b.png")
    whole = load(tmp_path / "x").train.values.copy()
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    values, index = next(place.glob("*.bytes")), next(place.glob("*.json"))
    if damage == "cut":
        values.write_bytes(values.read_bytes()[:-1])
    elif damage == "no index":
        index.unlink()
    elif damage == "broken index":
        index.write_text('{"skipped": [[99, "x"]]}')
    else:
        index.unlink()
        values.unlink()
        (place / ".123.tmp").write_bytes(b"half")
    assert np.array_equal(load(tmp_path / "x").train.values, whole)
    assert not list(place.glob(".*.tmp"))


def test_a_cache_without_room_or_rights_is_named(tmp_path, monkeypatch):
    put(tmp_path / "x", "a.png")
    (tmp_path / "file").touch()
    assert "cannot be written" in str(
        pytest.raises(DataError, load, tmp_path / "x", cache=str(tmp_path / "file")).value
    )

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        load(tmp_path / "x")
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    assert not any(place.iterdir())


@pytest.mark.slow
def test_two_starts_at_once_decode_once(tmp_path):
    for number in range(50):
        put(tmp_path / "x", f"{number}.png")
    code = "import sys; from vae_cli.data import Folder; print(Folder(sys.argv[1]).load().train.values.sum())"
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    outputs = [run.communicate() for run in runs]
    assert len({out for out, _ in outputs}) == 1
    assert sum("decoding 50 images" in err for _, err in outputs) == 1


def test_an_interrupted_decoding_leaves_nothing(tmp_path, monkeypatch):
    put(tmp_path / "x", "a.png")

    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoded, "_outcomes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load(tmp_path / "x")
    (place,) = (tmp_path / "cache" / "vae_cli" / "decoded").iterdir()
    assert not any(place.iterdir())


DECODE = """
import io, os, sys, time
from pathlib import Path
import numpy as np
from vae_cli.data.decoded import Pictures, decode
from vae_cli.data.pictures import Prepared

def prepare(file):
    with open("decoded.txt", "a") as file_:
        file_.write(f"{os.getpid()}\\n")
    time.sleep(float(sys.argv[1]))
    return Prepared(np.full((1, 2, 2), file.read()[0], np.uint8), (2, 2))

pictures = Pictures(list("abcdef"), lambda name: io.BytesIO(name.encode()), prepare, (1, 2, 2), "state")
print(decode(pictures, Path("cache"), "letters", "repair it").values[:, 0, 0, 0].tolist())
"""


def decoding(folder, seconds):
    call = [sys.executable, "-c", DECODE, str(seconds)]
    return subprocess.Popen(call, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(path, limit=30):
    deadline = time.monotonic() + limit
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert path.exists()


@pytest.mark.slow
def test_one_process_decodes_while_the_others_wait(tmp_path):
    processes = [decoding(tmp_path, 1) for _ in range(3)]
    answers = [process.communicate(timeout=60) for process in processes]
    assert {said for said, _ in answers} == {"[97, 98, 99, 100, 101, 102]\n"}
    assert len((tmp_path / "decoded.txt").read_text().split()) == 6
    waiting = "letters: waiting for another process that is making it ready\n"
    assert sorted(complaint.count("decoding 6 images") for _, complaint in answers) == [0, 0, 1]
    assert all(complaint == waiting or "decoding 6 images" in complaint for _, complaint in answers)


@pytest.mark.slow
def test_when_the_process_that_decodes_is_killed_another_takes_over(tmp_path):
    first = decoding(tmp_path, 60)
    wait_for(tmp_path / "decoded.txt")
    second = decoding(tmp_path, 0)
    assert "waiting" in second.stderr.readline()
    first.kill()
    first.communicate(timeout=60)
    said, complaint = second.communicate(timeout=60)
    assert said == "[97, 98, 99, 100, 101, 102]\n" and "decoding 6 images" in complaint
    assert sorted(path.name for path in (tmp_path / "cache").iterdir()) == ["state.bytes", "state.json"]
