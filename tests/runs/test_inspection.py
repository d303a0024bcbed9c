"""Checkpoints that are damaged, foreign or hostile: each is refused in one line or harmless, and runs nothing."""

import json
import os
import pickle
import shutil
import time
import zipfile
from collections import Counter

import numpy as np
import pytest
import safetensors.torch
import torch

from tests.support.damage import BYTES, answer, nested, peak, renamed, replaced, resumed, store
from vae_cli.build import trained
from vae_cli.errors import CheckpointError
from vae_cli.runs import checkpoint, tensor_file

LARGEST = 4e9  # bytes that looking at a file may take


@pytest.fixture(autouse=True)
def _measured():
    peak(anew=True)


def kind(message):
    """Return the kind of a message, the same for all files that are refused for one reason."""
    if message is None:
        return "opens with the very same weights"
    text = message.partition(": ")[2]
    for start in (
        "damaged",
        "empty",
        "not a checkpoint of vae-train",
        "a safetensors file",
        "a torch file",
        "of format",
    ):
        if text.startswith(start):
            return text.split(":")[0] if start == "damaged" else start
    return "its parts do not fit together" if "do not fit together" in text else text


# Random damage to the bytes


@pytest.mark.parametrize("times", [15, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize("damage", BYTES)
def test_random_damages_of_each_kind_are_refused_in_one_line_or_harmless(
    damage, times, good, contents, tmp_path, capsys
):
    rng, answers, path = np.random.default_rng(BYTES.index(damage)), Counter(), tmp_path / "x.safetensors"
    weights = checkpoint.weights(contents)

    def open_(path):
        model = trained.load(path, "cpu").model
        assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())

    for _ in range(times):
        path.write_bytes(damage(bytearray(good), rng))
        answers[kind(answer(path, open_))] += 1
    assert sum(answers.values()) == times
    assert answers["opens with the very same weights"] < times / 5
    assert peak() < LARGEST
    with capsys.disabled():
        if os.environ.get("VAE_TABLE"):
            print(f"\n{damage.__name__:>18}", *(f"{count} {said}" for said, count in answers.most_common()), sep=" | ")


def test_truncation_at_any_byte_is_refused(good, tmp_path):
    path = tmp_path / "x.safetensors"
    for length in range(0, len(good), len(good) // 150):
        path.write_bytes(good[:length])
        assert answer(path, checkpoint.load) is not None


# Other contents, with the right digest


def leaves(value, path=()):
    """Every place in a checkpoint, containers included."""
    yield path
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from leaves(inside, (*path, key))
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            yield from leaves(inside, (*path, number))


ODD = [None, True, -1, 0, 10**12, 10**40, 1.5, "", "x" * 5000, "a\nb", [], {}, [[]], {"a": 1}, {"tensor": "x"}]
ODD += [{"tuple": 3}, {"items": [[1]]}, {"float": "nan"}, {"float": "x"}, {"tensor": "training.random.torch"}]


@pytest.fixture(scope="session")
def stored(run):
    """The tensors and the metadata of the file."""
    tensors, metadata = tensor_file.read(run / "checkpoints" / "last.safetensors")
    return {name: value.clone() for name, value in tensors.items()}, metadata


@pytest.mark.parametrize("times", [40, pytest.param(240, marks=pytest.mark.slow)])
def test_every_text_replaced_by_something_odd_is_refused_in_one_line_or_harmless(times, stored, run, tmp_path):
    """Sampling from it, and going on with it in a copy of the run."""
    rng, path = np.random.default_rng(0), tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.parent.mkdir(parents=True)
    shutil.copy(run / "checkpoints" / "best.safetensors", path.parent)
    tensors, metadata = stored
    places = [place for place in leaves(metadata) if place]
    for number in range(times):
        place = places[int(rng.integers(len(places)))]
        changed = replaced(metadata, place, ODD[int(rng.integers(len(ODD)))])
        tensor_file.write(path, tensors, changed)
        answer(path, lambda path: trained.load(path, "cpu"))
        if number % 4 == 0:
            resumed(path.parent.parent, *(["epochs=2"] if number % 8 else []))
    assert peak() < LARGEST


@pytest.mark.parametrize("times", [15, pytest.param(200, marks=pytest.mark.slow)])
def test_every_tensor_replaced_by_something_odd_is_refused_in_one_line_or_harmless(times, stored, run, tmp_path):
    rng, path = np.random.default_rng(1), tmp_path / "run" / "checkpoints" / "last.safetensors"
    path.parent.mkdir(parents=True)
    tensors, metadata = stored
    odd = [torch.zeros(0), torch.full((3,), float("nan")), torch.zeros(2, 2, dtype=torch.int64), torch.tensor(True)]
    for _ in range(times):
        name = list(tensors)[int(rng.integers(len(tensors)))]
        changed = {**tensors, name: odd[int(rng.integers(len(odd)))]}
        tensor_file.write(path, changed, metadata)
        message = answer(path, lambda path: trained.load(path, "cpu"))
        assert (message is not None) or name.startswith("training.")
        resumed(path.parent.parent, "epochs=2")


@pytest.mark.parametrize("key", ["progress", "best", "config", "data", "version"])
def test_a_missing_text_is_named(key, stored, tmp_path):
    path = tmp_path / "x.safetensors"
    tensor_file.write(path, stored[0], {name: value for name, value in stored[1].items() if name != key})
    assert f"not a checkpoint of vae-train: {key} missing" in answer(path, checkpoint.load)


@pytest.mark.parametrize(
    ("version", "said"),
    [(4, "update vae_cli"), (1, "of format 1"), (0, "of format 0"), ("x", "of format x"), (None, "of format None")],
)
def test_another_version_is_named(version, said, contents, tmp_path):
    store(contents | {"version": version}, tmp_path / "x.safetensors")
    assert said in answer(tmp_path / "x.safetensors", checkpoint.load)


def test_weights_that_are_not_finite_or_of_another_shape_are_named(contents, tmp_path):
    path = tmp_path / "x.safetensors"
    name = "decoder.layers.0.weight"
    for part in ("model", "ema"):
        store(replaced(contents, (part, name), contents[part][name] * float("nan")), path)
        assert f"its weights {name} are not finite" in answer(path, checkpoint.load)
        store(replaced(contents, (part, name), torch.zeros(3, 7)), path)
        assert f"{name} is " in answer(path, lambda path: trained.load(path, "cpu"))
    extra = contents["model"] | {"decoder.more": torch.zeros(2)}
    store(contents | {"model": extra}, path)
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
    "safetensors": lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path),
    "diffusers": lambda path: safetensors.torch.save_file({"a": torch.zeros(2)}, path, {"format": "pt"}),
    "directory": lambda path: path.mkdir(),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", FOREIGN)
def test_another_tools_file_is_refused_by_name(name, tmp_path):
    FOREIGN[name](tmp_path / "x.safetensors")
    assert answer(tmp_path / "x.safetensors", lambda path: checkpoint.load(checkpoint.find(path))) is not None


# Hostile checkpoints


def with_header(change):
    """Give a file whose header is changed as a text, with its own length."""

    def act(data):
        length = 8 + int.from_bytes(data[:8], "little")
        text = change(bytes(data[8:length]))
        return len(text).to_bytes(8, "little") + text + bytes(data[length:])

    return act


def with_metadata(name, text):
    """Give a file one of whose texts is replaced, with the right digest."""

    def change(header):
        header = json.loads(header)
        header["__metadata__"][name] = text
        return json.dumps(header).encode()

    return with_header(change)


def with_digest(data):
    """Give a file its right digest; what its author has written is another checkpoint, and no damage."""
    import hashlib

    length = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:length])
    header["__metadata__"].pop("digest", None)
    canonical = json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    header["__metadata__"]["digest"] = hashlib.sha256(canonical + data[length:]).hexdigest()
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[length:]


HOSTILE = {
    "nested": '{"a": ' + "[" * 10_000 + "]" * 10_000 + "}",
    "nested objects": '{"a": ' * 10_000 + "1" + "}" * 10_000,
    "NaN": '{"latent_dim": NaN}',
    "Infinity": '{"latent_dim": -Infinity}',
    "1e999": '{"latent_dim": 1e999}',
    "5,000 digits": '{"latent_dim": ' + "9" * 5000 + "}",
    "no JSON": "hello",
    "half": '{"latent_dim": ',
    "a number": "5",
    "many": "[" + "[]," * 1_000_000 + "[]]",
    "many keys": "{" + ",".join(f'"{n}":1' for n in range(20_000)) + "}",
}


PLACES = [
    pytest.param(name, key, marks=[pytest.mark.slow] if name == "many" and key != "config" else [])
    for name in HOSTILE
    for key in ("config", "data", "progress", "best", "training")
]


@pytest.mark.parametrize(("name", "key"), PLACES)
def test_a_hostile_text_with_the_right_digest_is_refused_in_one_line(name, key, good, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(with_digest(with_metadata(key, HOSTILE[name])(good)))
    before = peak(anew=True)
    assert answer(path, checkpoint.load) is not None
    assert peak() - before < 5e8


def test_a_header_of_a_gigabyte_is_not_read(good, tmp_path):
    path = tmp_path / "x.safetensors"
    with path.open("wb") as file:
        file.write((1 << 30).to_bytes(8, "little") + b'{"__metadata__": {"config": "')
        file.truncate((1 << 30) + 8)  # zeros that take no room
    before = peak(anew=True)
    assert "damaged" in answer(path, checkpoint.load)
    assert peak() - before < 1e8


HEADERS = {
    "nested": lambda header: b'{"a": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "half": lambda header: header[: len(header) // 2],
    "no object": lambda header: b"[]",
    "no text": lambda header: b"\xff\xfe{}",
    "offsets beyond the file": lambda header: header.replace(b'"data_offsets": [0', b'"data_offsets": [99999999999'),
    "a huge shape": lambda header: header.replace(b'"shape": [', b'"shape": [100000000000, '),
    "a negative shape": lambda header: header.replace(b'"shape": [', b'"shape": [-1, '),
    "another type": lambda header: header.replace(b'"F32"', b'"F64"'),
    "an unknown type": lambda header: header.replace(b'"F32"', b'"Q99"'),
}


@pytest.mark.parametrize("digested", [False, True])
@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_is_refused_in_one_line_without_taking_memory(name, digested, good, tmp_path):
    path = tmp_path / "x.safetensors"
    changed = with_header(HEADERS[name])(good)
    try:
        path.write_bytes(with_digest(changed) if digested else changed)
    except (ValueError, KeyError, TypeError, RecursionError):
        pytest.skip("no header that could be given a digest")
    before = peak(anew=True)
    assert answer(path, checkpoint.load) is not None
    assert peak() - before < 1e8


def test_two_tensors_with_each_others_names_are_noticed(good, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(renamed(bytearray(good), np.random.default_rng(3)))
    assert "damaged" in answer(path, checkpoint.load)


NESTED = [("version",), ("data", "shape"), ("data", "support"), ("data", "name"), ("best",), ("progress", "seconds")]
NESTED += [
    ("data", "class_names"),
    ("data", "factor_names"),
    ("data", "factor_sizes"),
    ("optimizer", "state"),
    ("optimizer", "param_groups"),
    ("config", "dataset", "path"),
]


@pytest.mark.parametrize("place", NESTED)
def test_deep_lists_are_refused_in_no_time(place, contents, run, tmp_path):
    path = tmp_path / "run" / "checkpoints" / "last.safetensors"
    shutil.copytree(run / "checkpoints", path.parent)
    store(replaced(contents, place, nested(400)), path)
    began = time.monotonic()
    assert answer(path, lambda path: trained.load(path, "cpu")) is not None or place[0] == "config"
    (path.parent / "best.safetensors").unlink()
    assert resumed(tmp_path / "run", "epochs=2") is not None
    assert time.monotonic() - began < 8


def test_a_state_of_random_numbers_that_would_crash_numpy_is_refused(contents, tmp_path):
    name, keys, _, *rest = contents["random"]["numpy"]
    for state in ((name, keys, 10**9, *rest), (name, keys[:5], 3, *rest), ("PCG64", keys, 3, *rest)):
        store(replaced(contents, ("random", "numpy"), state), tmp_path / "x.safetensors")
        assert "its random is not" in answer(tmp_path / "x.safetensors", checkpoint.load)


@pytest.mark.parametrize("processes", [0, -1, 10**9, True, 2.0, "2", None, [2]])
def test_a_number_of_processes_that_cannot_be_is_refused(processes, contents, tmp_path):
    store(replaced(contents, ("progress", "processes"), processes), tmp_path / "x.safetensors")
    assert "its progress is not" in answer(tmp_path / "x.safetensors", checkpoint.load)


def test_a_summary_file_of_any_content_does_not_keep_a_run_from_resuming(run, tmp_path):
    for text in ("[]", "{}", "null", '{"status": "completed", "epochs": "x"}', "\0", json.dumps({"status": 5})):
        shutil.copytree(run, tmp_path / "run", dirs_exist_ok=True)
        (tmp_path / "run" / "summary.json").write_text(text)
        resumed(tmp_path / "run")
    assert answer(tmp_path / "run" / "checkpoints" / "last.safetensors", checkpoint.load) is None
    with pytest.raises(CheckpointError):
        checkpoint.find(tmp_path / "nothing")
