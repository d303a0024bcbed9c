"""EMNIST: its subsets, and the files that torchvision unpacks."""

import numpy as np
import pytest

from tests.support.archives import (
    SUBSETS,
    emnist_classes,
    emnist_files,
    emnist_members,
    emnist_part,
    put,
    trust,
    zipped,
)
from tests.support.files import error_of, write
from vae_cli.data import EMNIST
from vae_cli.data.sets import idx


@pytest.mark.parametrize("subset", SUBSETS)
def test_emnist_is_turned_upright_and_its_labels_start_at_0(tmp_path, subset):
    put(EMNIST, tmp_path)
    source = EMNIST(str(tmp_path), subset=subset).load()
    for images, part in ((source.train, "train"), (source.test, "test")):
        upright, labels = emnist_part(subset, part)
        assert np.array_equal(images.values[:, 0], upright)
        assert np.array_equal(images.labels, labels.astype(int) - (subset == "letters"))
    assert set(source.train.labels.tolist()) == set(range(emnist_classes(subset)))


def test_an_archive_that_lacks_a_part_is_named(tmp_path, monkeypatch):
    files = {"gzip.zip": zipped({name: c for name, c in emnist_members().items() if "balanced-test" not in name})}
    trust(monkeypatch, EMNIST, files)
    path = put(EMNIST, tmp_path, files) / "gzip.zip"
    assert f"{path} cannot be read" in error_of(EMNIST(str(tmp_path)).load)


def test_files_are_used_as_torchvision_leaves_them(tmp_path, site):
    from torchvision.datasets import EMNIST as Original  # noqa: N811

    folder = write(tmp_path / "data" / "EMNIST" / "raw", emnist_files())
    theirs = Original(str(tmp_path / "data"), split="letters", download=False)
    train = EMNIST(str(tmp_path / "data"), subset="letters").load().train
    assert np.array_equal(train.values[:, 0].transpose(0, 2, 1), theirs.data.numpy())
    assert np.array_equal(train.labels, theirs.targets.numpy() - 1)
    assert site.requested == [] and folder.is_dir()


def test_one_subset_unpacked_does_not_stand_for_another(tmp_path, site):
    digits = {name: content for name, content in emnist_files().items() if "digits" in name}
    write(tmp_path / EMNIST.subfolder, digits)
    EMNIST(str(tmp_path), subset="digits").load()
    assert site.requested == []
    EMNIST(str(tmp_path), subset="mnist").load()
    assert site.requested == ["gzip.zip"]


def test_half_of_an_unpacked_subset_is_left_for_the_archive(tmp_path):
    put(EMNIST, tmp_path)
    write(tmp_path / EMNIST.subfolder, {"emnist-balanced-train-images-idx3-ubyte": b"a stopped unpacking"})
    assert np.array_equal(EMNIST(str(tmp_path)).load().train.values[:, 0], emnist_part("balanced", "train")[0])


def test_broken_unpacked_files_are_named(tmp_path):
    images, labels = "emnist-balanced-train-images-idx3-ubyte", "emnist-balanced-test-labels-idx1-ubyte"
    folder = write(tmp_path / EMNIST.subfolder, emnist_files() | {images: emnist_files()[images][:-1]})
    message = error_of(EMNIST(str(tmp_path)).load)
    assert str(folder / images) in message and "delete it" in message
    write(folder, emnist_files() | {labels: idx.encode(np.zeros(3, np.uint8))})
    message = error_of(EMNIST(str(tmp_path)).load)
    assert "27x28x28 values and 3 labels" in message and str(folder) in message
