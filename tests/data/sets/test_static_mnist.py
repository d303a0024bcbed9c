"""Static MNIST: its numpy file, its text files, and how they are downloaded."""

import contextlib
import errno
import hashlib
import os
import socket
import struct
import threading
import time
import tracemalloc
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vae_cli.data import StaticMNIST
from vae_cli.data.download import mirrors
from vae_cli.data.sets import static_mnist
from vae_cli.errors import ConfigError, DataError

COUNTS = {"train": 12, "valid": 4, "test": 3}
NAMES = [f"binarized_mnist_{split}.amat" for split in COUNTS]
TRAIN = NAMES[0]
# Of the files on their authors' page, as TensorFlow Datasets records them.
PUBLISHED_SHA256 = {
    "train": "ad693b29f94c14277b095f5238ddefbbdaaae0939789dd2f4f0205278cee3e4d",
    "valid": "1de3d397c40fe8eeb33dafd4099a1f665ec01e96d9be234aaeeac8a34930e2e2",
    "test": "e6687bfea3f820c174f33b7865140b2a2dd2930ef786f35d45795fc193b5ab2c",
}


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
    parts = {split: static_mnist.Part(len(values), sha256(values.tobytes())) for split, values in arrays.items()}
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


def there(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(load, error=DataError):
    """The message of the error that `load` raises: one line."""
    with pytest.raises(error) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def refused(data, path):
    """What is said about a file that is not what it should be: its name, what is wrong, and the mend."""
    message = broken(StaticMNIST(str(data)).load)
    start, end = f"{path} does not hold the published images (", "); delete it to have them fetched again"
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
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(static_mnist, "PUBLISHED", "http://127.0.0.1:1/away")


# Where it is found


def test_the_numpy_file_is_read(tmp_path, arrays):
    put_arrays(tmp_path, **arrays)
    before = there(tmp_path)
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)
    assert there(tmp_path) == before


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
def test_lines_may_end_in_a_space_or_as_on_windows(tmp_path, arrays, end):
    put_texts(tmp_path, {name: content.replace(b"\n", end) for name, content in texts(arrays).items()})
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def test_the_last_line_may_have_no_end(tmp_path, arrays):
    put_texts(tmp_path, {name: content.rstrip() for name, content in texts(arrays).items()})
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
    assert "dataset.validation=5" in broken(StaticMNIST(str(tmp_path), validation=5).splits, ConfigError)
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
    assert why.startswith(f"the {split} pixels have SHA-256 ") and why.endswith(static_mnist.PARTS[split].sha256)


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
    assert why.startswith(f"the {split} pixels have SHA-256 ") and why.endswith(static_mnist.PARTS[split].sha256)


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
    message = broken(StaticMNIST(str(tmp_path)).load)
    assert message == f"{tmp_path / name} cannot be read (Permission denied); set data_dir= to another directory"


# Downloads


class Site(ThreadingHTTPServer):
    """Serves `files`, or `page` in place of all, or the first half of each; remembers what it was asked for."""

    def __init__(self, files):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = files
        self.page = None
        self.cut = False
        self.asked = []

    @property
    def host(self):
        return f"127.0.0.1:{self.server_port}"


class Answer(BaseHTTPRequestHandler):
    def do_GET(self):
        name = self.path.removeprefix("/there/")
        self.server.asked.append(name)
        content = self.server.page or self.server.files.get(name)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):  # whoever asks may have had enough
            self.wfile.write(content[: len(content) // 2] if self.server.cut else content)

    def log_message(self, *args):
        pass


@pytest.fixture
def site(monkeypatch, arrays):
    """A server that is taken for the authors'."""
    served = Site(texts(arrays))
    threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True).start()
    monkeypatch.setattr(static_mnist, "PUBLISHED", f"http://{served.host}/there")
    yield served
    served.shutdown()
    served.server_close()


def test_the_address_is_the_authors_page(monkeypatch):
    monkeypatch.undo()
    assert static_mnist.PUBLISHED == "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist"


def test_it_is_downloaded_once(tmp_path, site, arrays, capsys):
    data = tmp_path / "data"
    assert_is(StaticMNIST(str(data)).load(), arrays)
    said = f"static_mnist: downloading to {data / 'BinarizedMNIST'} from {site.host}\n"
    assert capsys.readouterr() == ("", said)
    assert there(data) == {f"BinarizedMNIST/{name}": content for name, content in site.files.items()}
    assert_is(StaticMNIST(str(data)).load(), arrays)
    assert site.asked == NAMES and capsys.readouterr() == ("", "")


def test_only_what_is_missing_is_downloaded(tmp_path, site, arrays):
    put_texts(tmp_path, {TRAIN: site.files[TRAIN]})
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)
    assert site.asked == NAMES[1:]


def test_a_broken_file_is_not_replaced_unasked(tmp_path, site):
    folder = put_texts(tmp_path, site.files | {TRAIN: b"my notes"})
    assert refused(tmp_path, folder / TRAIN).startswith("line 1 ")
    assert (folder / TRAIN).read_bytes() == b"my notes" and site.asked == []


def test_deleting_a_broken_file_has_it_fetched_again(tmp_path, site, arrays):
    folder = put_texts(tmp_path, site.files | {TRAIN: b"my notes"})
    (folder / TRAIN).unlink()
    assert_is(StaticMNIST(str(tmp_path)).load(), arrays)


def failed(data, host):
    """What is said of a download that failed: where from, why, and what to do by hand."""
    message = broken(StaticMNIST(str(data)).load)
    folder = data / "BinarizedMNIST"
    start = f"static_mnist is not in {folder}, and downloading it failed from {host} ("
    assert message.startswith(start)
    assert f"into {folder} by hand, or binarized_mnist.npz into {data}, " in message and "data_dir=" in message
    assert there(data) == {}
    why, mend, named = message.removeprefix(start).partition("); put ")
    assert mend and named.startswith(", ".join(NAMES))
    return why


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("cut short", f"{TRAIN}: it has 6 lines, not 12"),
        ("an HTML page", f"{TRAIN}: line 1 {LINES}"),
        ("not found", f"{TRAIN}: HTTP Error 404: Not Found"),
        ("endless", f"{TRAIN}: it has "),
        ("other pixels", f"{TRAIN}: the train pixels have SHA-256 "),
    ],
)
def test_a_bad_download_is_refused_in_one_line_and_leaves_nothing(tmp_path, site, arrays, damage, complaint):
    site.cut = damage == "cut short"
    if damage == "not found":
        site.files.clear()
    if damage == "other pixels":
        site.files[TRAIN] = text(other(arrays["train"]))
    site.page = {"an HTML page": b"<html>log in</html>", "endless": b"0 " * (1 << 24)}.get(damage)
    assert failed(tmp_path / "data", site.host).startswith(complaint)
    assert site.asked == [TRAIN]


def test_no_more_is_downloaded_than_the_files_can_have(tmp_path, site):
    site.page = b"0 " * (1 << 20)
    most = COUNTS["train"] * 1570
    assert f"it has {most + 1} bytes, and they have {most} at most" in failed(tmp_path / "data", site.host)


def test_a_bad_last_download_leaves_nothing_of_the_others(tmp_path, site):
    del site.files[NAMES[-1]]
    assert failed(tmp_path / "data", site.host) == f"{NAMES[-1]}: HTTP Error 404: Not Found"


def test_a_server_that_refuses_the_connection_is_named(tmp_path, arrays):
    assert failed(tmp_path / "data", "127.0.0.1:1") == f"{TRAIN}: Connection refused"


def test_a_server_that_never_answers_times_out(tmp_path, monkeypatch, arrays):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        host = f"127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(static_mnist, "PUBLISHED", f"http://{host}")
        monkeypatch.setattr(mirrors, "TIMEOUT", 0.1)
        start = time.monotonic()
        assert failed(tmp_path / "data", host) == f"{TRAIN}: timed out"
    assert time.monotonic() - start < 5


def test_a_full_disk_is_not_blamed_on_the_server(tmp_path, monkeypatch, site):
    def full(address, path, most):
        path.write_bytes(b"some")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(static_mnist, "_save", full)
    message = broken(StaticMNIST(str(tmp_path / "data")).load)
    assert f"data_dir={tmp_path / 'data'} cannot be written (No space left on device)" in message
    assert there(tmp_path / "data") == {}


def test_an_interrupted_download_leaves_nothing(tmp_path, monkeypatch, site):
    def interrupted(address, path, most):
        path.write_bytes(b"some")
        raise KeyboardInterrupt

    monkeypatch.setattr(static_mnist, "_save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        StaticMNIST(str(tmp_path / "data")).load()
    assert list((tmp_path / "data").iterdir()) == []


def test_a_data_dir_that_is_a_file_is_named(tmp_path, site):
    (tmp_path / "data").touch()
    assert f"data_dir={tmp_path / 'data'} cannot be written" in broken(StaticMNIST(str(tmp_path / "data")).load)
    assert site.asked == []


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
    assert {split: sha256(text(images.values)) for split, images in splits.items()} == PUBLISHED_SHA256


def test_the_real_text_files_are_read_in_seconds(tmp_path, real):
    splits = {"train": real.train.values, "valid": real.validation.values, "test": real.test.values}
    put_texts(tmp_path, texts(splits))
    start = time.monotonic()
    source = StaticMNIST(str(tmp_path)).load()
    assert time.monotonic() - start < 20
    assert_is(source, splits)
