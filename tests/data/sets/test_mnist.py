"""MNIST, Fashion-MNIST and KMNIST: files found, and downloaded."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.support.files import contents, error_of
from tests.support.mnist import TRAIN, arrays, files, packed, put, serve
from vae_cli.data import KMNIST, MNIST, FashionMNIST
from vae_cli.data.sets import idx, mnist
from vae_cli.system.cache import cache_dir

IMAGES, LABELS = mnist.FILES[0], mnist.FILES[1]
each_dataset = pytest.mark.parametrize("dataset", [MNIST, FashionMNIST, KMNIST])


@pytest.fixture(autouse=True)
def no_debian(monkeypatch):
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", Path("/nowhere"))


def assert_is_small_mnist(source):
    for images, part in ((source.train, mnist.FILES[:2]), (source.test, mnist.FILES[2:])):
        assert np.array_equal(images.values[:, 0], arrays()[part[0]])
        assert np.array_equal(images.labels, arrays()[part[1]]) and images.labels.dtype == np.int64
    assert source.support == "levels256" and source.validation is None


@each_dataset
@pytest.mark.parametrize("gzipped", [False, True])
def test_files_are_read_from_where_torchvision_keeps_them(tmp_path, dataset, gzipped):
    put(tmp_path / dataset.__name__ / "raw", gzipped=gzipped)
    source = dataset(str(tmp_path)).load()
    assert_is_small_mnist(source)
    assert source.train.values.flags.writeable, "torch warns about arrays that are not"
    data = dataset(str(tmp_path), validation=4).splits()
    assert (len(data.train), len(data.validation), len(data.test)) == (26, 4, 10)
    assert data.facts.name == dataset.name and data.facts.shape == (1, 28, 28)


def test_reading_files_that_are_there_writes_nothing_and_imports_no_torchvision(tmp_path):
    put(tmp_path / "MNIST" / "raw")
    code = "import sys; from vae_cli.data import MNIST; MNIST(sys.argv[1]).load(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=True)
    assert not {"torchvision", "requests"} & set(done.stdout.split()) and done.stderr == ""
    assert contents(tmp_path / "MNIST" / "raw") == files()


def test_data_dir_expands_the_home_directory_and_null_is_the_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert MNIST("~/data").data_dir == tmp_path / "data"
    assert MNIST(None).data_dir == MNIST("").data_dir == cache_dir()


LABEL_ERRORS = {
    "fewer labels": (LABELS, lambda data: idx.encode(np.zeros(29, np.uint8)), "30 images"),
    "label 200": (LABELS, lambda data: idx.encode(np.full(30, 200, np.uint8)), "label 200"),
}


@pytest.mark.parametrize("damage", LABEL_ERRORS)
def test_labels_that_do_not_fit_are_named_with_what_is_wrong_and_the_fix(tmp_path, damage):
    name, change, complaint = LABEL_ERRORS[damage]
    raw = put(tmp_path / "MNIST" / "raw", {name: change(files()[name])})
    message = error_of(MNIST(str(tmp_path)).load)
    assert str(raw / name) in message and complaint in message
    assert "delete it to have it downloaded again" in message


def test_a_directory_in_a_files_place_is_an_error(tmp_path):
    raw = put(tmp_path / "MNIST" / "raw")
    (raw / IMAGES).unlink()
    (raw / IMAGES).mkdir()
    assert "Is a directory" in error_of(MNIST(str(tmp_path)).load)


@pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="needs MNIST: set VAE_DATA_DIR to its directory")
def test_the_real_mnist_is_the_canonical_one():
    source = MNIST(os.environ["VAE_DATA_DIR"]).load()
    assert source.train.values.shape == (60000, 1, 28, 28) and source.test.values.shape == (10000, 1, 28, 28)
    assert source.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    digest = hashlib.md5(idx.encode(source.train.values[:, 0])).hexdigest()
    assert digest == "6bbc9ace898e44ae57da46a324031adb"


# Downloads


@each_dataset
def test_missing_files_are_downloaded_once(tmp_path, monkeypatch, server, dataset):
    serve(monkeypatch, dataset, server)
    for _ in range(2):
        assert_is_small_mnist(dataset(str(tmp_path)).load())
    assert contents(tmp_path) == {f"{dataset.__name__}/raw/{name}": content for name, content in packed().items()}
    assert server.requested == list(packed())


def test_a_file_that_is_there_is_kept(tmp_path, monkeypatch, server):
    serve(monkeypatch, MNIST, server)
    raw = put(tmp_path / "MNIST" / "raw", {IMAGES: idx.encode(np.full((TRAIN, 28, 28), 7, np.uint8))})
    for name in mnist.FILES[1:]:
        (raw / name).unlink()
    assert (MNIST(str(tmp_path)).load().train.values == 7).all()
    assert server.requested == [f"{name}.gz" for name in mnist.FILES[1:]]


@each_dataset
def test_when_no_mirror_works_one_line_says_what_to_do(tmp_path, monkeypatch, server, dataset):
    serve(monkeypatch, dataset, server)
    server.files.clear()
    message = error_of(dataset(str(tmp_path)).load)
    assert "failed from http://127.0.0.1:1/" in message and "(Connection refused)" in message
    assert f"from {server.host} (HTTP status 404" in message
    assert all(name in message for name in packed()) and str(tmp_path / dataset.__name__ / "raw") in message
    assert "dataset=digits" in message and "data_dir=" in message
    assert ("dataset-fashion-mnist" in message) == (dataset is FashionMNIST)


# Debian's Fashion-MNIST


def test_fashion_mnist_is_found_where_debian_puts_it(tmp_path, monkeypatch):
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", put(tmp_path / "debian", gzipped=True))
    assert_is_small_mnist(FashionMNIST(str(tmp_path / "data")).load())
    assert not (tmp_path / "data").exists()
    put(tmp_path / "data" / "FashionMNIST" / "raw", {IMAGES: idx.encode(np.full((TRAIN, 28, 28), 7, np.uint8))})
    assert (FashionMNIST(str(tmp_path / "data")).load().train.values == 7).all(), "data_dir goes before Debian"


def test_a_broken_file_of_debians_is_to_be_reinstalled(tmp_path, monkeypatch):
    debian = put(tmp_path / "debian", {IMAGES: files()[IMAGES][:-1]}, gzipped=True)
    monkeypatch.setattr(mnist, "DEBIAN_FASHION_MNIST", debian)
    message = error_of(FashionMNIST(str(tmp_path / "data")).load)
    assert "reinstall" in message and "delete" not in message
