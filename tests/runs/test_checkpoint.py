"""Checkpoints: what they hold, and that damage is noticed."""

import numpy as np
import pytest
import torch

from vae_cli.errors import CheckpointError
from vae_cli.runs import checkpoint


def test_checkpoints_hold_plain_data_under_the_documented_keys(digits_run):
    contents = torch.load(digits_run / "checkpoints" / "last.pt", weights_only=True)
    assert set(contents) == set(checkpoint.KEYS)
    assert contents["progress"]["epoch"] == 2 and contents["progress"]["step"] == 24
    assert contents["data"]["shape"] == (1, 8, 8) and contents["data"]["support"] == "levels256"
    assert not any(key.startswith("_orig_mod") for key in contents["model"])


def test_random_state_survives_a_checkpoint(tmp_path):
    import random

    torch.save(checkpoint.random_state(torch.device("cpu")), tmp_path / "r.pt")
    expected = (random.random(), np.random.rand(), torch.rand(()).item())
    checkpoint.restore_random_state(torch.load(tmp_path / "r.pt", weights_only=True), torch.device("cpu"))
    assert (random.random(), np.random.rand(), torch.rand(()).item()) == expected


@pytest.mark.parametrize("damage", ["missing", "empty", "text", "truncated", "foreign", "newer"])
def test_what_is_no_checkpoint_is_refused_in_one_line_that_names_it(damage, digits_run, tmp_path):
    path = tmp_path / "x.pt"
    good = (digits_run / "checkpoints" / "last.pt").read_bytes()
    if damage == "foreign":
        torch.save({"state_dict": {}}, path)
    elif damage == "newer":
        torch.save(checkpoint.load(digits_run / "checkpoints" / "last.pt") | {"version": 99}, path)
    elif damage != "missing":
        path.write_bytes({"empty": b"", "text": b"hello", "truncated": good[: len(good) // 2]}[damage])
    with pytest.raises(CheckpointError, match="x.pt") as caught:
        checkpoint.load(checkpoint.find(path))
    assert "\n" not in str(caught.value)


def test_random_damage_is_noticed_or_harmless(digits_run, tmp_path):
    path = tmp_path / "x.pt"
    good = (digits_run / "checkpoints" / "last.pt").read_bytes()
    whole = checkpoint.load(digits_run / "checkpoints" / "last.pt")
    rng, refused = np.random.default_rng(0), 0
    for number in range(100):
        damaged, at = bytearray(good), int(rng.integers(len(good)))
        if number % 4 == 0:
            damaged[at] ^= 1 << int(rng.integers(8))
        elif number % 4 == 1:
            damaged[at : at + 64] = rng.bytes(64)
        elif number % 4 == 2:
            damaged = damaged[:at]
        else:
            damaged[at:at] = b"x"
        path.write_bytes(damaged)
        try:
            loaded = checkpoint.load(path)
        except CheckpointError:
            refused += 1
        else:
            assert all(torch.equal(loaded["model"][key], value) for key, value in whole["model"].items())
    assert refused > 80


def test_a_failing_write_leaves_the_old_checkpoint_and_no_litter(digits_run, tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    contents = checkpoint.load(digits_run / "checkpoints" / "last.pt")
    checkpoint.save(path, contents)
    before = path.read_bytes()
    monkeypatch.setattr(torch, "save", lambda contents, file: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        checkpoint.save(path, contents)
    assert path.read_bytes() == before and [p.name for p in tmp_path.iterdir()] == ["last.pt"]
