"""Caltech 101 silhouettes."""

import numpy as np
import pytest

from tests.support.archives import mat, put, silhouettes, silhouettes_part, trust
from tests.support.files import error_of
from vae_cli.data import Caltech101Silhouettes
from vae_cli.data.sets import caltech101_silhouettes


def test_figures_are_white_on_black_and_upright_and_labels_have_names(tmp_path):
    put(Caltech101Silhouettes, tmp_path)
    source = Caltech101Silhouettes(str(tmp_path)).load()
    for images, part in ((source.train, "train"), (source.validation, "val"), (source.test, "test")):
        values, labels = silhouettes_part(part)
        assert np.array_equal(images.values[:, 0], values) and images.labels.tolist() == (labels - 1).tolist()
    assert source.class_names == ("anchor", "ant", "Faces easy")


def test_pixels_are_those_that_the_papers_code_makes(tmp_path):
    put(Caltech101Silhouettes, tmp_path)
    # Tomczak and Welling's loader inverts, and turns by a reshape in Fortran order.
    rows = silhouettes()["test_data"].astype(np.float32)
    theirs = 1 - rows.reshape(-1, 28, 28).reshape((-1, 784), order="F")
    assert np.array_equal(Caltech101Silhouettes(str(tmp_path)).load().test.values.reshape(-1, 784), theirs)


def test_the_address_and_the_checksum_are_those_that_were_published(monkeypatch):
    monkeypatch.undo()
    (file,) = Caltech101Silhouettes.files
    assert file.checksum == "md5:4483e9c14b188fd09937f9ea6f9ea777"
    assert file.mirrors == ("https://people.cs.umass.edu/~marlin/data/caltech101_silhouettes_28_split1.mat",)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"val_data": np.ones((3, 256))}, "it has val images (3, 256) and 3 labels"),
        ({"train_labels": np.ones((6, 1))}, "it has train images (7, 784) and 6 labels"),
        ({"test_data": np.full((4, 784), 0.5)}, "its test images have other values than 0 and 1"),
        ({"test_labels": np.zeros((4, 1))}, "its test labels are from 0 to 0, of 3 classes"),
        ({"train_labels": np.full((7, 1), 4)}, "its train labels are from 4 to 4, of 3 classes"),
        ({"test_data": None}, "test_data"),
    ],
)
def test_a_file_of_other_arrays_is_refused_in_a_line(tmp_path, monkeypatch, changes, complaint):
    arrays = {name: array for name, array in (silhouettes() | changes).items() if array is not None}
    files = {caltech101_silhouettes.FILE: mat(**arrays)}
    trust(monkeypatch, Caltech101Silhouettes, files)
    put(Caltech101Silhouettes, tmp_path, files)
    assert complaint in error_of(Caltech101Silhouettes(str(tmp_path)).load)
