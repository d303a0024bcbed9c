"""Checkpoints that are damaged, foreign or hostile: each is refused in one line or harmless, and runs nothing."""

import io
import json
import os
import pickle
import shutil
import time
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch

from tests.support.damage import (
    BYTES,
    Evil,
    answer,
    in_the_pickle,
    laughs,
    peak,
    removed,
    replaced,
    resumed,
    swapped,
    truncated,
    zeroed,
)
from vae_cli.build import trained
from vae_cli.errors import CheckpointError
from vae_cli.runs import checkpoint

LARGEST = 4e9  # bytes that looking at a file may take


@pytest.fixture(autouse=True)
def _measured():
    peak(anew=True)


def kind(message):
    """Return the kind of a message, the same for all files that are refused for one reason."""
    if message is None:
        return "opens with the very same weights"
    text = message.partition(": ")[2]
    for start in ("damaged", "empty", "not a checkpoint of vae-train", "a zip archive", "its weights", "of format"):
        if text.startswith(start):
            return text.split(":")[0] if start == "damaged" else start
    return "its parts do not fit together" if "do not fit together" in text else text


# Random damage to the bytes


@pytest.mark.parametrize("times", [15, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", BYTES)
def test_random_damages_of_each_kind_are_refused_in_one_line_or_harmless(
    damage, times, good, contents, tmp_path, capsys
):
    rng, answers, path = np.random.default_rng(BYTES.index(damage)), Counter(), tmp_path / "x.pt"
    weights = checkpoint.weights(contents)

    def open_(path):
        model = trained.load(path, "cpu").model
        same = all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
        # Whoever puts the checksums right after changing the pickle has written a checkpoint of their own.
        assert same or damage is in_the_pickle

    for _ in range(times):
        path.write_bytes(damage(bytearray(good), rng))
        answers[kind(answer(path, open_))] += 1
    assert sum(answers.values()) == times
    if damage in (truncated, zeroed, removed, swapped):
        assert answers["opens with the very same weights"] < times / 5
    assert peak() < LARGEST
    with capsys.disabled():
        if os.environ.get("VAE_TABLE"):
            print(f"\n{damage.__name__:>18}", *(f"{count} {said}" for said, count in answers.most_common()), sep=" | ")


def test_truncation_at_any_byte_is_refused(good, tmp_path):
    path = tmp_path / "x.pt"
    for length in range(0, len(good), len(good) // 150):
        path.write_bytes(good[:length])
        assert answer(path, checkpoint.load) is not None


# Other contents, written as torch writes them


def leaves(value, path=()):
    """Every place in a checkpoint, containers included."""
    yield path
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, (*path, key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from leaves(inside, (*path, number))


ODD = [
    None,
    True,
    -1,
    0,
    10**12,
    10**40,
    1.5,
    float("nan"),
    float("inf"),
    "",
    "x" * 5000,
    "a\nb",
    [],
    {},
    [[]],
    {"a": 1},
]
ODD += [torch.zeros(0), torch.full((3,), float("nan")), torch.zeros(2, 2, dtype=torch.int64), (1, 2), b"bytes"]


@pytest.mark.parametrize("times", [80, pytest.param(240, marks=pytest.mark.slow)])
def test_every_part_replaced_by_something_odd_is_refused_in_one_line_or_harmless(times, contents, run, tmp_path):
    """Sampling from it, and going on with it in a copy of the run."""
    rng, path = np.random.default_rng(0), tmp_path / "run" / "checkpoints" / "last.pt"
    path.parent.mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "best.pt", path.parent)
    places = [place for place in leaves(contents) if place]
    opened = Counter()
    for number in range(times):
        place = places[int(rng.integers(len(places)))]
        changed = replaced(contents, place, ODD[int(rng.integers(len(ODD)))])
        torch.save(changed, path)
        message = answer(path, lambda path: trained.load(path, "cpu"))
        if message is None:
            opened[place[0]] += 1
            assert place[0] not in ("model", "ema") or place == ("ema",)
        if number % 8 == 0:
            resumed(path.parent.parent, *(["epochs=2"] if number % 16 else []))
    assert opened.total() < 0.75 * times
    assert peak() < LARGEST


@pytest.mark.parametrize(
    "key", ["model", "ema", "optimizer", "scheduler", "progress", "random", "best", "config", "data"]
)
def test_a_missing_key_is_named(key, contents, tmp_path):
    path = tmp_path / "x.pt"
    torch.save({name: value for name, value in contents.items() if name != key}, path)
    assert f"not a checkpoint of vae-train: {key} missing" in answer(path, checkpoint.load)


@pytest.mark.parametrize(
    ("version", "said"),
    [(3, "update vae_cli"), (1, "of format 1"), (0, "of format 0"), ("x", "of format x"), (None, "of format None")],
)
def test_another_version_is_named(version, said, contents, tmp_path):
    torch.save(contents | {"version": version}, tmp_path / "x.pt")
    assert said in answer(tmp_path / "x.pt", checkpoint.load)


def test_weights_that_are_not_finite_or_of_another_shape_are_named(contents, tmp_path):
    path = tmp_path / "x.pt"
    name = "decoder.layers.0.weight"
    for part in ("model", "ema"):
        torch.save(replaced(contents, (part, name), contents[part][name] * float("nan")), path)
        assert f"its weights {name} are not finite" in answer(path, checkpoint.load)
        torch.save(replaced(contents, (part, name), torch.zeros(3, 7)), path)
        assert f"{name} is of shape (" in answer(path, lambda path: trained.load(path, "cpu"))
    extra = contents["model"] | {"decoder.more": torch.zeros(2)}
    torch.save(contents | {"model": extra}, path)
    assert "decoder.more" in answer(path, lambda path: trained.load(path, "cpu"))


FOREIGN = {
    "state dict": lambda path: torch.save({"layer.weight": torch.zeros(2)}, path),
    "lightning": lambda path: torch.save({"state_dict": {}, "epoch": 1, "pytorch-lightning_version": "2"}, path),
    "tensor": lambda path: torch.save(torch.zeros(3), path),
    "list": lambda path: torch.save([1, 2], path),
    "legacy": lambda path: torch.save({"model": torch.zeros(2)}, path, _use_new_zipfile_serialization=False),
    "module": lambda path: torch.save(torch.nn.Linear(2, 2), path),
    "torchscript": lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path),
    "npz": lambda path: np.savez(path.open("wb"), train=np.zeros(3)),
    "docx": lambda path: zipfile.ZipFile(path, "w").writestr("word/document.xml", "<x/>"),
    "pickle": lambda path: path.write_bytes(pickle.dumps({"model": 1})),
    "png": lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100)),
    "text": lambda path: path.write_text("hello"),
    "empty": lambda path: path.touch(),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_another_tools_file_is_refused_by_name(name, tmp_path):
    FOREIGN[name](tmp_path / "x.pt")
    assert answer(tmp_path / "x.pt", lambda path: checkpoint.load(checkpoint.find(path))) is not None


# Hostile checkpoints


def rewritten(good, change):
    """The checkpoint with another pickle and the right checksums."""
    source, target = zipfile.ZipFile(io.BytesIO(good)), io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for record in source.infolist():
            content = source.read(record)
            archive.writestr(record.filename, change(content) if record.filename.endswith("data.pkl") else content)
    return target.getvalue()


@pytest.mark.parametrize("protocol", [0, 1, 2, 4, 5])
@pytest.mark.parametrize("function", [os.system, os.mkdir, eval, exec, torch.load, getattr, bytearray, __import__])
def test_a_pickle_that_asks_for_code_runs_nothing(function, protocol, good, tmp_path):
    target = tmp_path / "ran"
    arguments = {os.system: (f"touch {target}",), os.mkdir: (str(target),), bytearray: (3 * 10**9,)}
    called = arguments.get(function, (f"open({str(target)!r}, 'w')",))
    payload = pickle.dumps({"model": Evil(function, *called)}, protocol=protocol)
    path = tmp_path / "x.pt"
    for content in (rewritten(good, lambda _: payload), payload):
        path.write_bytes(content)
        assert answer(path, checkpoint.load) is not None
        assert not target.exists()


def test_the_message_names_what_a_pickle_asked_for(good, tmp_path):
    payload = pickle.dumps({"model": Evil(os.system, "true")}, protocol=2)
    (tmp_path / "x.pt").write_bytes(rewritten(good, lambda _: payload))
    assert "asks for posix.system" in answer(tmp_path / "x.pt", checkpoint.load)


def test_a_compressed_record_is_not_unpacked(good, tmp_path):
    source, path = zipfile.ZipFile(io.BytesIO(good)), tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for record in source.infolist():
            zeros = bytes(2**28) if record.filename.endswith("data/0") else source.read(record)
            archive.writestr(record.filename, zeros)
    assert path.stat().st_size < 1e6 and "compressed" in answer(path, checkpoint.load)


def legacy(tensors):
    """A file as torch wrote it before there were zip archives."""
    file = io.BytesIO()
    torch.save(tensors, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


def test_a_file_that_torch_and_zipfile_would_read_differently_is_refused(good, contents, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(legacy(contents) + good)
    assert answer(path, checkpoint.load) is not None
    source = zipfile.ZipFile(io.BytesIO(good))
    bad = pickle.dumps({"model": Evil(bytearray, 3 * 10**9)}, protocol=2)
    for twin in ("archive/DATA.PKL", "archive/Data.pkl", "archive/data.pkl/data.pkl", "archive/xdata.pkl"):
        with zipfile.ZipFile(path, "w") as archive:
            for record in source.infolist():
                archive.writestr(record.filename, source.read(record))
            archive.writestr(twin, bad)
        assert answer(path, checkpoint.load) is not None, twin


def test_a_storage_without_a_record_is_refused(contents, tmp_path):
    path = tmp_path / "x.pt"
    payload = pickle.dumps({"model": Evil(torch.UntypedStorage, 10**9)}, protocol=2)
    torch.save(contents, path)
    path.write_bytes(rewritten(path.read_bytes(), lambda _: payload))
    assert "no plain data" in answer(path, checkpoint.load)


NESTED = [("version",), ("data", "shape"), ("data", "support"), ("data", "name"), ("best",), ("progress", "seconds")]
NESTED += [
    ("data", "class_names"),
    ("optimizer", "state"),
    ("optimizer", "param_groups"),
    ("random", "python"),
    ("config", "dataset", "path"),
]


@pytest.mark.parametrize("place", NESTED)
def test_lists_that_hold_each_other_are_refused_in_no_time(place, contents, run, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.pt"
    shutil.copytree(run / "checkpoints", path.parent)
    torch.save(replaced(contents, place, laughs(30)), path)
    began = time.monotonic()
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None
    (path.parent / "best.pt").unlink()
    assert resumed(tmp_path / "run", "epochs=2") is not None
    assert time.monotonic() - began < 8


def test_a_state_of_random_numbers_that_would_crash_numpy_is_refused(contents, tmp_path):
    name, keys, _, *rest = contents["random"]["numpy"]
    for state in ((name, keys, 10**9, *rest), (name, keys[:5], 3, *rest), ("PCG64", keys, 3, *rest)):
        torch.save(replaced(contents, ("random", "numpy"), state), tmp_path / "x.pt")
        assert "its random is not" in answer(tmp_path / "x.pt", checkpoint.load)


@pytest.mark.parametrize("processes", [0, -1, 10**9, True, 2.0, "2", None, [2]])
def test_a_number_of_processes_that_cannot_be_is_refused(processes, contents, tmp_path):
    torch.save(replaced(contents, ("progress", "processes"), processes), tmp_path / "x.pt")
    assert "its progress is not" in answer(tmp_path / "x.pt", checkpoint.load)


def numel(change):
    """A pickle whose tensors say they have other sizes than their records."""

    def act(content):
        changed = content.replace(b"K\x06K@\x86", change)
        assert changed != content
        return changed

    return act


@pytest.mark.parametrize("size", [b"\x8a\x05\x00\x00\x00\x00\x7fK@\x86", b"J\xff\xff\xff\x7fK@\x86"])
def test_a_tensor_larger_than_its_file_is_refused(size, good, tmp_path):
    path = tmp_path / "x.pt"
    path.write_bytes(rewritten(good, numel(size)))
    assert answer(path, checkpoint.load) is not None


def test_an_expanded_tensor_is_refused(contents, tmp_path):
    path = tmp_path / "x.pt"
    huge = torch.zeros(1).expand(10**11)
    torch.save(replaced(contents, ("model", "decoder.layers.0.weight"), huge), path)
    assert "larger than the file" in answer(path, checkpoint.load)


def test_a_summary_file_of_any_content_does_not_keep_a_run_from_resuming(run, tmp_path):
    for text in ("[]", "{}", "null", '{"status": "completed", "epochs": "x"}', "\0", json.dumps({"status": 5})):
        shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True)
        (tmp_path / "run" / "summary.json").write_text(text)
        resumed(tmp_path / "run")
    assert answer(tmp_path / "run" / "checkpoints" / "last.pt", checkpoint.load) is None
    with pytest.raises(CheckpointError):
        checkpoint.find(tmp_path / "nothing")
