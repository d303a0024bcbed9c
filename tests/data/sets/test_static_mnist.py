"""Static MNIST: its numpy file, its text files, and their download."""

import errno
import hashlib
import os
import struct
import time
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.support.files import contents, error_of
from vae_cli.data import StaticMNIST
from vae_cli.data.sets import static_mnist
from vae_cli.errors import ConfigError

COUNTS = {"train": 12, "valid": 4, "test": 3}
NAMES = [f"binarized_mnist_{split}.amat" for split in COUNTS]
TRAIN = NAMES[0]


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def text(images):
    """A line an image, as published."""
    lines = np.full((len(images), 784, 2), ord(" "), np.uint8)
    lines[..., 0] = images.reshape(-1, 784) + ord("0")
    lines[:, -1, 1] = ord("\n")
    return lines.tobytes()


@pytest.fixture
def arrays(monkeypatch):
    """A small set, which is taken for the published one."""
    rng = np.random.default_rng(0)
    made = {split: rng.integers(0, 2, (count, 1, 28, 28), np.uint8) for split, count in COUNTS.items()}
    trust(monkeypatch, made)
    return made


def trust(monkeypatch, arrays):
    parts = {
        split: static_mnist.Part(len(values), sha256(values.tobytes()), sha256(text(values)))
        for split, values in arrays.items()
    }
    monkeypatch.setattr(static_mnist, "PARTS", parts)


def put_arrays(data, **arrays):
    data.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(data / "binarized_mnist.npz", **arrays)
    return data / "binarized_mnist.npz"


def texts(arrays):
    return {name: text(values) for name, values in zip(NAMES, arrays.values())}


def put_texts(data, files):
    folder = data / "BinarizedMNIST"
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def refused(data, path):
    """Return the message about a wrong file: its name, what is wrong, and the fix."""
    message = error_of(StaticMNIST(str(data)).load)
    start, end = f"{path} does not hold the published images (", "); delete it to have it downloaded again"
    assert message.startswith(start) and message.endswith(end)
    return message.removeprefix(start).removesuffix(end)


def assert_is(source, arrays):
    assert source.support == "binary"
    for images, values in zip((source.train, source.validation, source.test), arrays.values()):
        assert images.values.dtype == np.uint8 and np.array_equal(images.values, values)
        assert images.labels is None and images.rows is None


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Nothing answers unless a test has a site."""
    monkeypatch.setattr(static_mnist, "PUBLISHED", "http://127.0.0.1:1/away")


# Where it is found


def test_the_numpy_file_is_read(tmp_path, arrays):
    put_arrays(tmp_path, **arrays)
    before = contents(tmp_path)
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)
    assert contents(tmp_path) == before


def test_an_array_in_fortran_order_is_the_same_array(tmp_path, arrays):
    put_arrays(tmp_path, **{split: np.asfortranarray(values) for split, values in arrays.items()})
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def test_the_text_files_are_read(tmp_path, arrays):
    put_texts(tmp_path, texts(arrays))
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def test_the_numpy_file_comes_first(tmp_path, arrays):
    put_arrays(tmp_path, **arrays)
    put_texts(tmp_path, {TRAIN: b"nothing"})
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def test_without_a_data_dir_it_lies_in_the_users_cache(tmp_path, monkeypatch, arrays):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    put_texts(tmp_path / "vae_cli", texts(arrays))
    assert_is(StaticMNIST().load(), arrays)


@pytest.mark.parametrize("end", [b" \n", b"\r\n"])
def test_lines_may_end_in_a_space_or_as_on_windows_and_the_last_may_have_no_end(tmp_path, arrays, end):
    for last in (end, b""):
        changed = {name: content.replace(b"\n", end).rstrip() + last for name, content in texts(arrays).items()}
        put_texts(tmp_path, changed)
        assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


# Its splits


@pytest.mark.parametrize("binarize", ["none", "threshold", "static", "dynamic"])
def test_it_has_a_validation_split_and_is_binary_whatever_is_chosen(tmp_path, arrays, binarize):
    put_arrays(tmp_path, **arrays)
    data = StaticMNIST(str(tmp_path), binarize=binarize).splits()
    for split, values in zip((data.train, data.validation, data.test), arrays.values()):
        assert np.array_equal(split.images.numpy(), values) and split.scale == 1 and not split.dynamic
    facts = data.facts
    assert (facts.name, facts.shape, facts.support) == ("static_mnist", (1, 28, 28), "binary")
    assert facts.classes == 0 and facts.size == COUNTS["train"]


def test_holding_nothing_out_trains_on_the_validation_split_too(tmp_path, arrays):
    put_arrays(tmp_path, **arrays)
    data = StaticMNIST(str(tmp_path), validation=0).splits()
    assert data.validation is None and len(data.test) == COUNTS["test"]
    assert np.array_equal(data.train.images.numpy(), np.concatenate([arrays["train"], arrays["valid"]]))


def test_another_validation_split_is_a_mistake_in_the_settings(tmp_path, arrays):
    put_arrays(tmp_path, **arrays)
    assert "dataset.validation=5" in error_of(StaticMNIST(str(tmp_path), validation=5).splits, ConfigError)
    assert len(StaticMNIST(str(tmp_path), validation=COUNTS["valid"]).splits().validation) == COUNTS["valid"]


# Numpy files that are something else


def other(values):
    """One pixel changed."""
    changed = values.copy()
    changed[-1, 0, 13, 13] ^= 1
    return changed


@pytest.mark.parametrize("split", COUNTS)
def test_arrays_of_other_pixels_are_refused(tmp_path, arrays, split):
    path = put_arrays(tmp_path, **arrays | {split: other(arrays[split])})
    why = refused(tmp_path, path)
    assert why.startswith(f"the {split} pixels have SHA-256 ") and why.endswith(static_mnist.PARTS[split].pixels)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda values: values[:-1], "its array train is uint8 (11, 1, 28, 28), not uint8 (12, 1, 28, 28)"),
        (lambda values: values[:, 0], "its array train is uint8 (12, 28, 28)"),
        (lambda values: values.astype(bool), "its array train is bool"),
        (lambda values: np.array(["x"], object), "Object arrays cannot be loaded"),
        (lambda values: values.astype(float), "its array train is larger than 12 images"),
    ],
    ids=["short", "without channels", "bool", "objects", "floats"],
)
def test_arrays_of_another_kind_are_refused(tmp_path, arrays, change, complaint):
    path = put_arrays(tmp_path, **arrays | {"train": change(arrays["train"])})
    assert complaint in refused(tmp_path, path)


def test_a_numpy_file_without_one_of_its_arrays_is_refused(tmp_path, arrays):
    del arrays["valid"]
    assert refused(tmp_path, put_arrays(tmp_path, **arrays)) == "it has no array valid"


@pytest.mark.parametrize("content", [b"", b"<html>log in</html>", b"PK\x03\x04" + bytes(99)])
def test_a_numpy_file_that_is_none_is_refused(tmp_path, arrays, content):
    (tmp_path / "binarized_mnist.npz").write_bytes(content)
    assert refused(tmp_path, tmp_path / "binarized_mnist.npz") == "File is not a zip file"


def test_a_numpy_file_with_a_broken_byte_is_refused(tmp_path, arrays):
    path = put_arrays(tmp_path, **arrays)
    content = bytearray(path.read_bytes())
    content[500] ^= 255
    path.write_bytes(content)
    assert refused(tmp_path, path)


def header(shape):
    """An array's beginning, and nothing of it."""
    described = f"{{'descr': '|u1', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(described)) + described


def test_an_array_that_says_it_is_huge_is_refused_and_takes_no_memory(tmp_path, arrays):
    path = put_arrays(tmp_path, **arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.npy", header((1 << 62,)))
    assert refused(tmp_path, path)


def test_an_array_that_unpacks_to_much_is_refused_before_it_does(tmp_path, arrays):
    path = put_arrays(tmp_path, **arrays)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.npy", header((1 << 25,)) + bytes(1 << 25))
    assert peak(lambda: refused(tmp_path, path)) < 1 << 20


def test_a_directory_in_the_numpy_files_place_is_refused(tmp_path, arrays):
    (tmp_path / "binarized_mnist.npz").mkdir()
    assert refused(tmp_path, tmp_path / "binarized_mnist.npz") == "it is not a file"


# Text files that are something else


@pytest.mark.parametrize("split", COUNTS)
def test_lines_of_other_pixels_are_refused(tmp_path, arrays, split):
    folder = put_texts(tmp_path, texts(arrays | {split: other(arrays[split])}))
    why = refused(tmp_path, folder / f"binarized_mnist_{split}.amat")
    assert why.startswith(f"the {split} pixels have SHA-256 ") and why.endswith(static_mnist.PARTS[split].pixels)


def swapped(content):
    first, second, *rest = content.splitlines(keepends=True)
    return b"".join([second, first, *rest])


LINES = "is not 784 zeros and ones with spaces between them"
CHANGES = {
    "empty": (lambda content: b"", "it has 0 lines, not 12"),
    "an HTML page": (lambda content: b"<html>\nlog in\n</html>", f"line 1 {LINES}"),
    "a line less": (lambda content: content[1568:], "it has 11 lines, not 12"),
    "a line more": (lambda content: content + b"\n", "it has more than 12 lines"),
    "cut short": (lambda content: content[:-100], f"line 12 {LINES}"),
    "a number less": (lambda content: content[2:], f"line 1 {LINES}"),
    "a number more": (lambda content: b"0 " + content, f"line 1 {LINES}"),
    "a two": (lambda content: content[:3136] + b"2" + content[3137:], f"line 3 {LINES}"),
    "a zero byte": (lambda content: b"\0" + content[1:], f"line 1 {LINES}"),
    "a comma": (lambda content: content[:1] + b"," + content[2:], f"line 1 {LINES}"),
    "a ten": (lambda content: b"10" + content[2:], f"line 1 {LINES}"),
    "floats": (lambda content: content.replace(b"0 ", b"0. ", 9), f"line 1 {LINES}"),
    "two spaces": (lambda content: content[:1] + b" " + content[1:], f"line 1 {LINES}"),
    "blank lines between": (lambda content: content.replace(b"\n", b"\n\n", 3), f"line 2 {LINES}"),
    "another order": (swapped, "the train pixels have SHA-256"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_text_of_another_kind_is_refused(tmp_path, arrays, change):
    files = texts(arrays)
    made, complaint = CHANGES[change]
    folder = put_texts(tmp_path, files | {TRAIN: made(files[TRAIN])})
    assert refused(tmp_path, folder / TRAIN).startswith(complaint)


def peak(run):
    """The most memory that Python had while it ran."""
    tracemalloc.start()
    run()
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_text_never_lies_in_memory_as_a_whole(tmp_path, monkeypatch, arrays):
    arrays["train"] = np.random.default_rng(1).integers(0, 2, (2000, 1, 28, 28), np.uint8)
    trust(monkeypatch, arrays)
    put_texts(tmp_path, texts(arrays))
    assert peak(StaticMNIST(str(tmp_path)).load) < 1.2 * arrays["train"].nbytes


@pytest.mark.parametrize("name", [f"BinarizedMNIST/{TRAIN}", "binarized_mnist.npz"])
def test_a_file_that_is_too_large_is_not_read(tmp_path, arrays, name):
    put_texts(tmp_path, texts(arrays))
    with (tmp_path / name).open("wb") as file:
        file.truncate(1 << 40)
    assert peak(lambda: refused(tmp_path, tmp_path / name)) < 1 << 20
    assert refused(tmp_path, tmp_path / name).startswith(f"it has {1 << 40} bytes")


@pytest.mark.parametrize("kind", ["directory", "pipe", "device"])
def test_what_is_not_a_file_is_not_read(tmp_path, arrays, kind):
    folder = put_texts(tmp_path, texts(arrays))
    (folder / TRAIN).unlink()
    if kind == "directory":
        (folder / TRAIN).mkdir()
    elif kind == "pipe":
        os.mkfifo(folder / TRAIN)
    else:
        (folder / TRAIN).symlink_to("/dev/zero")
    assert refused(tmp_path, folder / TRAIN) == "it is not a file"


@pytest.mark.parametrize("name", [f"BinarizedMNIST/{TRAIN}", "binarized_mnist.npz"])
def test_a_file_that_may_not_be_read_is_named(tmp_path, monkeypatch, arrays, name):
    put_arrays(tmp_path, **arrays)
    put_texts(tmp_path, texts(arrays))
    if name != "binarized_mnist.npz":
        (tmp_path / "binarized_mnist.npz").unlink()

    def denied(*args, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    monkeypatch.setattr(zipfile, "ZipFile", denied)
    message = error_of(StaticMNIST(str(tmp_path)).load)
    assert message == f"{tmp_path / name} cannot be read (Permission denied); set data_dir= to another directory"


# Downloads


@pytest.fixture
def published(server, arrays, monkeypatch):
    """The server passes for the authors'."""
    server.files = {f"there/{name}": content for name, content in texts(arrays).items()}
    monkeypatch.setattr(static_mnist, "PUBLISHED", server.address("there"))
    return server


def test_the_address_is_the_authors_page(monkeypatch):
    monkeypatch.undo()
    assert static_mnist.PUBLISHED == "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"


def test_it_is_downloaded_once(tmp_path, published, arrays):
    for _ in range(2):
        assert_is(StaticMNIST(str(tmp_path / "data")).load(), arrays)
    assert contents(tmp_path / "data") == {f"BinarizedMNIST/{name}": text for name, text in texts(arrays).items()}
    assert published.requested == [f"there/{name}" for name in NAMES]


def test_only_what_is_missing_is_downloaded_and_a_broken_file_is_not_replaced_unasked(tmp_path, published, arrays):
    folder = put_texts(tmp_path, {TRAIN: b"my notes"})
    assert refused(tmp_path, folder / TRAIN).startswith("line 1 ")
    assert (folder / TRAIN).read_bytes() == b"my notes"
    assert published.requested == [f"there/{name}" for name in NAMES[1:]]
    (folder / TRAIN).unlink()
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def test_a_download_of_other_pixels_is_refused_with_what_to_do_by_hand(tmp_path, published, arrays):
    published.files[f"there/{TRAIN}"] = text(other(arrays["train"]))
    message = error_of(StaticMNIST(str(tmp_path)).load)
    assert message.startswith(f"static_mnist needs {tmp_path / 'BinarizedMNIST' / TRAIN}, and downloading it failed")
    assert "not the checksum sha256:" in message and f"or put binarized_mnist.npz into {tmp_path}" in message
    assert contents(tmp_path) == {}


# The real one


@pytest.fixture
def real():
    path = Path(os.environ.get("VAE_DATA_DIR", "")) / "binarized_mnist.npz"
    if "VAE_DATA_DIR" not in os.environ or not path.exists():
        pytest.skip("needs binarized_mnist.npz in VAE_DATA_DIR")
    return StaticMNIST(str(path.parent)).load()


def test_the_real_one_is_what_its_authors_have_published(real):
    splits = dict(zip(COUNTS, (real.train, real.validation, real.test)))
    assert [len(images) for images in splits.values()] == [50000, 10000, 10000]
    published = {split: part.text for split, part in static_mnist.PARTS.items()}
    assert {split: sha256(text(images.values)) for split, images in splits.items()} == published


def test_the_real_text_files_are_read_in_seconds(tmp_path, real):
    splits = {"train": real.train.values, "valid": real.validation.values, "test": real.test.values}
    put_texts(tmp_path, texts(splits))
    start = time.monotonic()
    source = StaticMNIST(str(tmp_path)).load()
    assert time.monotonic() - start < 20
    assert_is(source, splits)
