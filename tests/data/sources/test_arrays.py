"""Users' numpy files."""

import os
import pickle
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.files import error_of
from vae_cli.data import Arrays
from vae_cli.data.sources.arrays import InMemory
from vae_cli.errors import ConfigError, DataError

RNG = np.random.default_rng(0)


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def grays(*shape):
    """Bytes that are not all 0 or 1."""
    values = RNG.integers(0, 256, shape, dtype=np.uint8)
    values.flat[0] = 200
    return values


def bits(*shape):
    return RNG.integers(0, 2, shape, dtype=np.uint8)


def save(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def save_npy(path, values):
    np.save(path, values)
    return str(path)


@pytest.mark.parametrize(
    ("shape", "channels_first"),
    [
        ((5, 8, 6), (5, 1, 8, 6)),
        ((5, 1, 8, 6), (5, 1, 8, 6)),
        ((5, 3, 8, 6), (5, 3, 8, 6)),
        ((5, 8, 6, 1), (5, 1, 8, 6)),
        ((5, 8, 6, 3), (5, 3, 8, 6)),
        ((5, 3, 8, 3), (5, 3, 8, 3)),
        ((5, 1, 8, 1), (5, 1, 8, 1)),
        ((1, 8, 6), (1, 1, 8, 6)),
    ],
)
def test_every_layout_becomes_channels_first(tmp_path, shape, channels_first):
    values = grays(*shape)
    loaded = Arrays(save(tmp_path / "x.npz", train=values)).load().train.values
    assert loaded.shape == channels_first
    moved = np.moveaxis(values, -1, 1) if shape[-3:] != channels_first[-3:] and len(shape) == 4 else values
    assert np.array_equal(loaded.squeeze(), moved.squeeze())


@pytest.mark.parametrize(
    ("values", "support", "dtype"),
    [
        (grays(4, 5, 5), "levels256", np.uint8),
        (bits(4, 5, 5), "binary", np.uint8),
        (bits(4, 5, 5).astype(bool), "binary", np.uint8),
        (bits(4, 5, 5).astype(np.int64), "binary", np.uint8),
        (bits(4, 5, 5).astype(">f8"), "binary", np.uint8),
        (RNG.random((4, 5, 5)), "unit", np.float32),
        (RNG.random((4, 5, 5)).astype(np.float16), "unit", np.float32),
        (RNG.random((4, 5, 5)).astype(">f4"), "unit", np.float32),
        (np.asfortranarray(RNG.random((4, 5, 5))), "unit", np.float32),
    ],
)
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_the_support_follows_from_the_values(tmp_path, values, support, dtype, suffix):
    path = tmp_path / f"x.{suffix}"
    source = Arrays(save(path, train=values) if suffix == "npz" else save_npy(path, values)).load()
    assert source.support == support and source.train.values.dtype == dtype
    assert np.allclose(source.train.values[:, 0], values, atol=1e-7)


def test_one_gray_split_makes_the_whole_set_gray(tmp_path):
    path = save(tmp_path / "x.npz", train=bits(4, 5, 5), test=grays(4, 5, 5))
    assert Arrays(path).load().support == "levels256"


@pytest.mark.parametrize("name", ["valid", "validation", "val"])
def test_splits_and_labels_go_by_their_names(tmp_path, name):
    arrays = {"train": grays(6, 5, 5), name: grays(3, 5, 5), "test": grays(2, 5, 5)}
    labels = {
        "labels": np.arange(6),
        f"{name}_labels": np.arange(3),
        "test_labels": np.arange(2, dtype=np.uint8),
    }
    source = Arrays(save(tmp_path / "x.npz", **arrays, **labels)).load()
    for split, count in ((source.train, 6), (source.validation, 3), (source.test, 2)):
        assert split.labels.tolist() == list(range(count)) and split.labels.dtype == np.int64
    assert np.array_equal(source.validation.values[:, 0], arrays[name])
    assert Arrays(str(tmp_path / "x.npz")).splits().facts.classes == 6


def test_a_lone_array_is_the_training_set_under_any_name(tmp_path):
    source = Arrays(save(tmp_path / "x.npz", faces=grays(6, 5, 5))).load()
    assert len(source.train) == 6 and source.test is None and source.validation is None


def test_a_lone_array_that_calls_itself_something_else_is_refused(tmp_path):
    for name in ("test", "valid", "train_labels"):
        with pytest.raises(DataError, match="has no array train"):
            Arrays(save(tmp_path / "x.npz", **{name: grays(6, 5, 5)})).load()


def test_the_content_decides_what_a_file_is(tmp_path):
    np.save(tmp_path / "x.npy", grays(6, 5, 5))
    (tmp_path / "x.npy").rename(tmp_path / "x.npz")
    assert len(Arrays(str(tmp_path / "x.npz")).load().train) == 6


def test_a_mapped_file_is_checked_and_handed_on_without_being_read_whole(tmp_path):
    path = tmp_path / "large.npy"
    values = np.lib.format.open_memmap(path, "w+", np.uint8, (16_000, 1, 64, 64))
    values[0, 0, 0, 0] = 200
    del values
    tracemalloc.start()
    train = Arrays(str(path)).load().train.values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(train, np.memmap) and peak < path.stat().st_size / 3


def test_the_home_directory_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    save(tmp_path / "my images.npz", train=grays(6, 5, 5))
    assert len(Arrays("~/my images.npz").load().train) == 6


@pytest.mark.parametrize("path", [None, ""])
def test_no_path_is_a_mistake_in_the_settings(path):
    assert "dataset.path" in error_of(lambda: Arrays(path), ConfigError)


IMAGES_6 = np.full((6, 5, 5), 9, np.uint8)
FLOATS = np.linspace(0, 1, 150).reshape(6, 5, 5)
REFUSED = {
    "NaN": ({"train": np.where(FLOATS == 0, np.nan, FLOATS)}, "train holds NaN"),
    "infinite": ({"train": np.where(FLOATS == 0, -np.inf, FLOATS)}, "train holds NaN or infinite"),
    "NaN in bits": ({"train": np.where(FLOATS == 0, np.nan, FLOATS > 0.5)}, "holds NaN"),
    "bytes as floats": (
        {"train": FLOATS * 255},
        "floats from 0 to 255, not in [0, 1]; they look like bytes: divide by 255",
    ),
    "symmetric": (
        {"train": FLOATS * 2 - 1},
        "from -1 to 1, not in [0, 1]; rescale them, perhaps by (x + 1) / 2",
    ),
    "above one": ({"train": FLOATS * 1.0001}, "1.0001"),
    "int64": ({"train": IMAGES_6.astype(np.int64)}, '.astype("uint8")'),
    "negative": ({"train": -IMAGES_6.astype(np.int64)}, "from -9 to -9"),
    "uint16": ({"train": IMAGES_6.astype(np.uint16) * 1000}, "9000"),
    "complex": ({"train": IMAGES_6.astype(complex)}, "complex128"),
    "strings": ({"train": IMAGES_6.astype(str)}, "dtype <U3"),
    "objects": ({"train": IMAGES_6.astype(object)}, "Python objects"),
    "flat": ({"train": IMAGES_6.reshape(150)}, "train is 150; reshape it to (N, H, W)"),
    "a number": ({"train": np.uint8(3)}, "a single number"),
    "five axes": ({"train": IMAGES_6[None, None]}, "1x1x6x5x5"),
    "two channels": ({"train": np.stack([IMAGES_6] * 2, 1)}, "one or three channels"),
    "no images": ({"train": IMAGES_6[:0]}, "train is empty"),
    "no pixels": ({"train": IMAGES_6[:, :0]}, "train is empty"),
    "empty test": ({"train": IMAGES_6, "test": IMAGES_6[:0]}, "test is empty"),
    "unlike shapes": (
        {"train": IMAGES_6, "test": IMAGES_6[:, 1:]},
        "test has images of 1x4x5, but train of 1x5x5",
    ),
    "unlike types": ({"train": IMAGES_6, "valid": FLOATS}, "save every split as uint8"),
    "bool and bytes": ({"train": IMAGES_6, "test": IMAGES_6 > 10}, "test is bool"),
    "no train": ({"x_train": IMAGES_6, "x_test": IMAGES_6}, "rename x_train to train, x_test to test"),
    "only labels": ({"valid": IMAGES_6, "valid_labels": np.arange(6)}, "no array train"),
    "labels without images": ({"train": IMAGES_6, "test_labels": np.arange(6)}, "no array test"),
    "two validations": (
        {"train": IMAGES_6, "valid": IMAGES_6, "validation": IMAGES_6},
        "valid and validation",
    ),
    "no arrays": ({}, "no arrays at all"),
    "five labels": ({"train": IMAGES_6, "labels": np.arange(5)}, "labels is 5 for 6 images"),
    "one-hot labels": ({"train": IMAGES_6, "labels": np.eye(6, dtype=int)}, "labels is 6x6 for 6 images"),
    "negative labels": ({"train": IMAGES_6, "labels": np.arange(6) - 1}, "negative label, -1"),
    "float labels": ({"train": IMAGES_6, "labels": np.arange(6) / 2}, "labels are integers"),
    "named labels": ({"train": IMAGES_6, "labels": np.array(["a"] * 6)}, "labels are integers"),
    "object labels": ({"train": IMAGES_6, "labels": np.array([None] * 6)}, "Python objects"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_an_npz_that_is_no_set_of_images_is_refused_by_file_array_and_fix(tmp_path, case):
    arrays, complaint = REFUSED[case]
    path = save(tmp_path / "x.npz", **arrays)
    message = error_of(Arrays(path).load)
    assert path in message and complaint in message


def truncated(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def broken_file(folder, kind):
    npz, npy = folder / "x.npz", folder / "x.npy"
    np.savez_compressed(npz, train=grays(60, 9, 9))
    np.save(npy, grays(60, 9, 9))
    if kind in ("npz cut short", "npy cut short"):
        path = npz if kind.startswith("npz") else npy
        truncated(path)
        return path
    if kind == "npz garbled":
        data = bytearray(npz.read_bytes())
        data[200:260] = bytes(60)
        npz.write_bytes(data)
        return npz
    if kind == "npy header":
        npy.write_bytes(npy.read_bytes().replace(b"'shape'", b"'sh(pe'"))
        return npy
    contents = {"text": b"hello", "empty": b"", "pickle": pickle.dumps(Payload(folder / "trap"))}
    npy.write_bytes(contents[kind])
    return npy


@pytest.mark.parametrize(
    "kind", ["npz cut short", "npy cut short", "npz garbled", "npy header", "text", "empty", "pickle"]
)
def test_a_broken_file_is_named_and_never_unpickled(tmp_path, kind):
    path = broken_file(tmp_path, kind)
    assert str(path) in error_of(Arrays(str(path)).load)
    assert not (tmp_path / "trap").exists()


def test_an_npy_of_objects_is_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Payload(tmp_path / "trap")], dtype=object))
    assert "Python objects" in error_of(Arrays(str(tmp_path / "x.npy")).load)
    assert not (tmp_path / "trap").exists()


def test_a_zip_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("train", "text")
    assert "not in numpy's format" in error_of(Arrays(str(tmp_path / "x.npz")).load)


def test_a_file_that_is_missing_or_a_directory_is_named(tmp_path):
    assert "does not exist" in error_of(Arrays(str(tmp_path / "none.npz")).load)
    assert "is a directory" in error_of(Arrays(str(tmp_path)).load)
    (tmp_path / "file").touch()
    assert "cannot be read" in error_of(Arrays(str(tmp_path / "file" / "x.npz")).load)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs binarized_mnist.npz in VAE_DATA_DIR")
def test_the_literatures_binarized_mnist_just_works():
    path = Path(os.environ["VAE_DATA_DIR"]) / "binarized_mnist.npz"
    if not path.exists():
        pytest.skip("VAE_DATA_DIR has no binarized_mnist.npz")
    source = Arrays(str(path)).load()
    assert source.support == "binary"
    means = [split.values.mean() for split in (source.train, source.validation, source.test)]
    assert means == pytest.approx([0.13056, 0.13113, 0.13251], abs=1e-5)


BINARY = {
    "uint8": (bits(8, 4, 4), 1),
    "int64": (bits(8, 4, 4).astype(np.int64), 1),
    "bool": (bits(8, 4, 4).astype(bool), 255),
    "float32": (bits(8, 4, 4).astype(np.float32), 255),
}


@pytest.mark.parametrize("kind", BINARY)
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_zeros_and_ones_are_what_the_model_takes(tmp_path, kind, suffix, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    values, white = BINARY[kind]
    path = tmp_path / f"x.{suffix}"
    np.save(path, values) if suffix == "npy" else np.savez(path, train=values)
    for support in (None, "binary"):
        assert Arrays(str(path)).load(support).support == "binary"
    levels = Arrays(str(path)).load("levels256")
    assert levels.support == "levels256" and levels.train.values.dtype == np.uint8
    assert np.array_equal(levels.train.values[:, 0], white * values.astype(np.uint8))
    assert len(levels.notes) == (white == 1)
    unit = Arrays(str(path)).load("unit")
    assert unit.support == ("unit" if white == 255 else "levels256")
    assert np.array_equal(unit.train.values[:, 0], values.astype(unit.train.values.dtype))


def test_black_alone_has_no_note_and_other_values_keep_their_own_support(tmp_path):
    assert Arrays(save(tmp_path / "x.npz", train=np.zeros((3, 4, 4), np.uint8))).load("levels256").notes == ()
    floats = Arrays(save(tmp_path / "y.npz", train=RNG.random((3, 4, 4)).astype(np.float32)))
    assert floats.load("levels256").support == floats.load("binary").support == "unit"


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.uint8, np.float32])
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_a_range_is_the_value_of_white(tmp_path, dtype, suffix, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    white = 255 if dtype == np.uint8 else 4080
    values = (np.arange(256) * (white // 255)).astype(dtype).reshape(4, 8, 8)
    path = tmp_path / f"x.{suffix}"
    np.save(path, values) if suffix == "npy" else np.savez(path, train=values)
    source = Arrays(str(path), range=white).load()
    expected = np.arange(256).reshape(4, 1, 8, 8)
    if dtype == np.float32:
        assert source.support == "unit"
        np.testing.assert_allclose(source.train.values, expected / 255, atol=1e-6)
    else:
        assert source.support == "levels256" and np.array_equal(source.train.values, expected)
    with pytest.raises(DataError, match=r"has values from 0 to .*, outside of 0 to dataset\.range=100"):
        Arrays(str(path), range=100).load()


def test_integers_of_more_than_8_bits_name_the_range_that_would_do(tmp_path):
    path = save(tmp_path / "x.npz", train=np.arange(64, dtype=np.uint16).reshape(1, 8, 8) * 60)
    with pytest.raises(DataError, match=r"uint16 with values from 0 to 3780; .* or set dataset\.range=4095"):
        Arrays(path).load()


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("label_train", "train_labels"),
        ("train_label", "train_labels"),
        ("y_train", "train_labels"),
        ("target", "labels"),
        ("tets", "test"),
        ("X_test", "test"),
        ("vaild", "valid"),
    ],
)
def test_an_array_under_a_name_like_one_that_is_read_is_named_with_it(name, meant, tmp_path):
    path = save(tmp_path / "x.npz", train=IMAGES_6, **{name: IMAGES_6})
    message = error_of(Arrays(path).load)
    assert message == f"{path} has arrays under names that are not read: rename {name} to {meant}, or leave them out"
    with pytest.raises(DataError, match=f"rename {name} to {meant}"):
        InMemory({"train": IMAGES_6, name: IMAGES_6}).load()


def test_misspelled_training_images_are_named_together_with_the_others(tmp_path):
    path = save(tmp_path / "x.npz", trian=IMAGES_6, label_train=np.arange(6))
    assert "rename trian to train, label_train to train_labels" in error_of(Arrays(path).load)


def test_other_arrays_are_left_out_and_named(tmp_path):
    arrays = {"train": IMAGES_6, "train_labels": np.arange(6), "mean": IMAGES_6[0], "ids\n": np.arange(6)}
    (note,) = Arrays(save(tmp_path / "x.npz", **arrays)).load().notes
    assert note.startswith("left out the 2 arrays mean, ids\\n of ") and note.endswith("labels, test_labels")
    assert InMemory({"images": IMAGES_6, "file": np.array(["a"] * 6), "z": np.zeros(6)}).load().notes == ()
