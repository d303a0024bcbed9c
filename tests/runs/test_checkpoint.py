"""Checkpoints: what they hold, and how they are written."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from vae_cli.errors import CheckpointError
from vae_cli.runs import checkpoint, tensor_file

LIST = """
import json, sys
from safetensors import safe_open
assert not any(name.partition(".")[0] in ("vae_cli", "torch") for name in sys.modules)
with safe_open(sys.argv[1], framework="numpy") as file:
    texts = file.metadata()
    print(json.dumps([sorted(file.keys()), json.loads(texts["config"])["latent_dim"], sorted(texts)]))
"""


def test_the_safetensors_package_alone_lists_weights_and_config(run):
    call = [sys.executable, "-c", LIST, str(run / "checkpoints" / "best.safetensors")]
    names, latent_dim, texts = json.loads(subprocess.run(call, capture_output=True, check=True).stdout)
    assert {"encoder.layers.0.weight", "decoder.output.bias", "likelihood.raw_scale"} < set(names)
    assert latent_dim == 2 and texts == ["best", "config", "data", "digest", "progress", "version"]


def test_the_best_one_holds_the_weights_to_be_used_and_nothing_of_the_training(run, contents):
    best, weights = run / "checkpoints" / "best.safetensors", checkpoint.weights(contents)
    stored = load_file(best)
    assert stored.keys() == weights.keys()
    assert all(torch.equal(stored[name], weights[name]) for name in weights)
    loaded = checkpoint.load(best)
    assert loaded["optimizer"] is loaded["random"] is loaded["scheduler"] is loaded["ema"] is None
    assert loaded["config"] == contents["config"] and loaded["data"] == contents["data"]


def test_the_last_one_holds_the_averages_under_the_models_names_and_the_rest_under_a_prefix(run, contents):
    stored = load_file(run / "checkpoints" / "last.safetensors")
    for name, average in contents["ema"].items():
        assert torch.equal(stored[name], average) and not torch.equal(stored[name], contents["model"][name])
        assert torch.equal(stored[f"training.weights.{name}"], contents["model"][name])
    rest = {name for name in stored if name not in contents["model"]}
    assert rest and all(name.startswith("training.") for name in rest)


def test_contents_survive_a_file_bit_for_bit(contents, tmp_path):
    checkpoint.save(tmp_path / "x.safetensors", contents)
    again = checkpoint.load(tmp_path / "x.safetensors")
    assert repr(again) == repr(contents)
    for part in ("model", "ema"):
        assert all(torch.equal(again[part][name], value) for name, value in contents[part].items())
    states = [c["optimizer"]["state"] for c in (again, contents)]
    assert all(torch.equal(states[0][n][k], states[1][n][k]) for n in states[0] for k in states[0][n])
    checkpoint.save(tmp_path / "y.safetensors", again)
    assert (tmp_path / "x.safetensors").read_bytes() == (tmp_path / "y.safetensors").read_bytes()


def test_random_state_survives_a_checkpoint(contents, tmp_path):
    import random

    path = tmp_path / "x.safetensors"
    checkpoint.save(path, contents | {"random": checkpoint.random_state(torch.device("cpu"))})
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    checkpoint.restore_random_state(checkpoint.load(path)["random"], torch.device("cpu"))
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


def test_the_weights_of_an_open_checkpoint_are_mapped_and_writing_to_them_changes_no_file(run, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((run / "checkpoints" / "best.safetensors").read_bytes())
    before, weights = path.read_bytes(), checkpoint.load(path)["model"]
    if sys.platform == "linux":
        assert os.fsencode(path) in Path("/proc/self/maps").read_bytes()
    for value in weights.values():
        value.add_(1)
    assert path.read_bytes() == before


def test_a_failing_write_leaves_the_old_checkpoint_and_no_litter(contents, tmp_path, monkeypatch):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, contents)
    before, honest, calls = path.read_bytes(), tensor_file._bytes, []

    def failing(tensor):
        calls.append(tensor)
        if len(calls) > 70:  # in the middle of writing, after all were hashed
            raise ZeroDivisionError
        return honest(tensor)

    monkeypatch.setattr(tensor_file, "_bytes", failing)
    with pytest.raises(ZeroDivisionError):
        checkpoint.save(path, contents)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.safetensors"]


def test_another_library_reads_what_was_written_and_tensors_begin_at_whole_lines_of_memory(contents, tmp_path):
    tensors = {"a": torch.arange(5), "b": torch.zeros(0, 3), "c": torch.tensor(2.5, dtype=torch.float64)}
    tensors |= {"d": torch.ones(3, 4).bfloat16(), "e": torch.tensor([True, False]), "f": torch.randn(64, 8)}
    tensor_file.write(tmp_path / "x.safetensors", tensors, {"text": {"a": [1.5, None, "é"]}})
    with safe_open(tmp_path / "x.safetensors", framework="pt") as file:
        assert all(torch.equal(file.get_tensor(name), value) for name, value in tensors.items())
        assert json.loads(file.metadata()["text"]) == {"a": [1.5, None, "é"]}
        assert (tmp_path / "x.safetensors").stat().st_size % 8 == 5 * 8 % 8 + 2 + 0  # bytes of the two booleans
    raw = (tmp_path / "x.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    assert (8 + length) % 64 == 0 and header["f"]["data_offsets"][0] % 64 == 0


def test_a_directory_with_files_of_an_older_version_says_so(tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "best.pt").touch()
    with pytest.raises(CheckpointError, match=r"its \.pt files are of an older vae_cli"):
        checkpoint.find(tmp_path)


def test_a_folder_of_runs_names_the_newest_of_them(tmp_path):
    for number in range(5):
        file = tmp_path / "outputs" / "mnist" / f"run {number}" / "checkpoints" / ("last" if number else "best")
        file.parent.mkdir(parents=True)
        file.with_suffix(".safetensors").touch()
        os.utime(file.with_suffix(".safetensors"), (100 + number % 4, 100 + number % 4))
    (tmp_path / "outputs" / "mnist" / "none").mkdir()
    folder = tmp_path / "outputs" / "mnist"
    newest = ", ".join(str(folder / f"run {number}") for number in (3, 2, 1))
    for place in (folder, tmp_path / "outputs", tmp_path):
        with pytest.raises(CheckpointError) as caught:
            checkpoint.find(place)
        message = str(caught.value)
        assert message.endswith(f"; name one of the runs in it, such as the newest: {newest} and 2 older")
        assert message.startswith(f"checkpoint={place}: the directory holds no checkpoints/best.safetensors or")
    with pytest.raises(CheckpointError, match=r"or last\.safetensors$"):
        checkpoint.find(folder / "none")


def test_numbers_that_are_not_finite_survive_a_file(contents, tmp_path):
    best = contents["best"] | {"validation": contents["best"]["validation"] | {"odd": -math.inf}}
    checkpoint.save(tmp_path / "x.safetensors", contents | {"best": best})
    assert checkpoint.load(tmp_path / "x.safetensors")["best"] == best


def test_every_type_that_a_network_of_ones_own_may_hold_survives_or_is_named(contents, tmp_path):
    path = tmp_path / "x.safetensors"
    odd = {f"encoder.{n}": torch.ones(2, dtype=dtype) for n, dtype in enumerate(tensor_file.DTYPES)}
    checkpoint.save(path, contents | {"model": contents["model"] | odd})
    again = checkpoint.load(path)["model"]
    for name, value in odd.items():
        assert again[name].dtype == value.dtype and again[name].tolist() == value.tolist()
    wide = {"encoder.odd": torch.ones(2, dtype=torch.complex128)}
    with pytest.raises(CheckpointError, match=r"encoder\.odd is of type torch\.complex128"):
        checkpoint.save(path, contents | {"model": contents["model"] | wide})


def test_an_optimizer_whose_state_is_no_plain_data_is_refused_in_one_line(contents, tmp_path):
    optimizer = contents["optimizer"] | {"dtype": torch.float32}
    with pytest.raises(CheckpointError, match=r"optimizer\.dtype is a dtype, which is no plain data"):
        checkpoint.save(tmp_path / "x.safetensors", contents | {"optimizer": optimizer})


def test_weights_alone_never_replace_what_a_training_goes_on_from(contents, tmp_path):
    path = tmp_path / "last.safetensors"
    checkpoint.save(path, contents)
    before = path.read_bytes()
    with pytest.raises(CheckpointError, match="a training goes on from the file of this name; choose another"):
        checkpoint.save_weights(path, contents)
    assert path.read_bytes() == before
