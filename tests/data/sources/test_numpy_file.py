"""Numpy files that are damaged or hostile are refused and run nothing."""

import os
import pickle
import re
import struct
import zipfile
import zlib

import numpy as np
import pytest
import torch

from tests.support.damage import BYTES_OF_ANY_FILE, peak
from vae_cli.data import Arrays
from vae_cli.errors import ConfigError, DataError, UserError


class Evil:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def npy(descr, shape, data=b"", magic=b"\x93NUMPY\x01\x00"):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return magic + struct.pack("<H", len(header)) + header + data


def refused(path):
    before = peak(anew=True)
    with pytest.raises((DataError, ConfigError)) as caught:
        Arrays(str(path)).splits()
    message = str(caught.value)
    assert "\n" not in message and str(path) in message
    assert peak() - before < 5e8
    return message


@pytest.mark.parametrize(
    "content",
    [
        npy("|u1", "(1000000000000, 8, 8)"),
        npy("|u1", "(10, 8, 8)", bytes(639)),
        npy("|u1", "(-1, 8, 8)", bytes(640)),
        npy("|u1", "(0, 8, 8)"),
        npy("|u1", "(2, 8, 8, 8, 8)", bytes(9000)),
        npy("|O", "(1,)", pickle.dumps([Evil(os.mkdir, "ran")])),
        npy("[('a', '<f4')]", "(4, 8, 8)", bytes(2000)),
        npy("<c8", "(4, 8, 8)", bytes(5000)),
        npy("<M8[s]", "(4, 8, 8)", bytes(5000)),
        npy("<U5", "(4, 8, 8)", bytes(9000)),
        npy("|u1", "(2, 8, 8) + __import__('os').mkdir('ran')", bytes(200)),
        npy("|u1", "(" * 500 + "2" + ")" * 500, bytes(200)),
        b"\x93NUMPY\x01\x00\xff\xff{",
        b"\x93NUMPY",
        b"\x93NUMPY\x09\x09" + bytes(100),
    ],
)
def test_a_hostile_npy_file_is_refused_and_runs_nothing(content, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npy").write_bytes(content)
    refused(tmp_path / "x.npy")
    assert not (tmp_path / "ran").exists()


def npz(path, **members):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name.replace("_DOT_", "."), content)


def test_an_npz_that_unpacks_to_more_than_the_memory_is_refused_unopened(tmp_path, monkeypatch):
    from vae_cli.system import memory

    npz(tmp_path / "x.npz", train_DOT_npy=npy("|u1", "(1000, 512, 512)", bytes(1000 * 512 * 512)))
    assert (tmp_path / "x.npz").stat().st_size < 1e6
    monkeypatch.setattr(memory, "available", lambda: 1e8)
    assert "unpacks to 262 MB" in refused(tmp_path / "x.npz")


def test_an_npz_with_objects_or_paths_that_climb_writes_and_runs_nothing(tmp_path, monkeypatch):
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    monkeypatch.chdir(inside)
    npz(inside / "x.npz", train_DOT_npy=npy("|O", "(1,)", pickle.dumps([Evil(os.mkdir, "ran")])))
    assert "Python objects" in refused(inside / "x.npz")
    image = npy("|u1", "(30, 8, 8)", bytes(range(256)) * 8)
    with zipfile.ZipFile(inside / "y.npz", "w") as archive:
        for name in ("train.npy", "../../climbed.npy", "/tmp/climbed_absolute.npy"):
            archive.writestr(name, image)
    assert len(Arrays(str(inside / "y.npz")).splits().train) > 0
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b", "x.npz", "y.npz"]


def test_damaged_npz_files_are_refused_or_read(tmp_path):
    path, rng = tmp_path / "x.npz", np.random.default_rng(0)
    np.savez_compressed(path, train=rng.integers(0, 256, (40, 8, 8), dtype=np.uint8), labels=np.zeros(40, int))
    whole = path.read_bytes()
    for number in range(150):
        damage = BYTES_OF_ANY_FILE[number % len(BYTES_OF_ANY_FILE)]
        path.write_bytes(damage(bytearray(whole), rng))
        try:
            Arrays(str(path)).splits()
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)


VALUES = {
    "nan": (np.full((20, 4, 4), np.nan, np.float32), "NaN"),
    "one nan": (np.where(np.arange(320).reshape(20, 4, 4) == 77, np.nan, 0.5), "NaN"),
    "inf": (np.full((20, 4, 4), np.inf), "NaN or infinite"),
    "negative": (np.full((20, 4, 4), -0.1), "not in [0, 1]"),
    "bytes as floats": (np.full((20, 4, 4), 255.0), "divide by 255"),
    "int64": (np.full((20, 4, 4), 300), "int64"),
}


def test_a_boolean_array_that_holds_bytes_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(npy("|b1", "(20, 8, 8)", bytes(range(256)) * 5))
    assert "says bool" in refused(tmp_path / "x.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz"])
@pytest.mark.parametrize("name", VALUES)
def test_values_that_are_no_pixels_are_named(name, suffix, tmp_path):
    values, complaint = VALUES[name]
    path = tmp_path / f"x.{suffix}"
    if suffix == "npy":
        np.save(path, values)
    else:
        np.savez(path, train=values)
    assert complaint in refused(path)


def test_a_zip_of_images_is_no_npz(tmp_path):
    npz(tmp_path / "x.npz", a_DOT_png=zlib.compress(bytes(100)))
    assert "is not in numpy's format" in refused(tmp_path / "x.npz")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_torch_file_is_said_to_be_one_and_converted_by_what_is_printed(tmp_path, is_zip):
    images = torch.arange(256, dtype=torch.uint8).reshape(4, 8, 8)
    torch.save(images, tmp_path / "my x.pt", _use_new_zipfile_serialization=is_zip)
    with pytest.raises(DataError, match="my x.pt is a torch file") as caught:
        Arrays(str(tmp_path / "my x.pt")).load()
    convert = re.search(r"numpy\.save\(.*, tensor\)", str(caught.value))[0]
    exec(convert, {"numpy": np, "tensor": torch.load(tmp_path / "my x.pt", weights_only=True)})
    assert np.array_equal(Arrays(str(tmp_path / "my x.npy")).load().train.values[:, 0], images)
