"""Omniglot in the papers' form."""

import numpy as np
import pytest

from tests.support.archives import chardata, chardata_part, mat, put, trust
from tests.support.files import error_of
from vae_cli.data import OmniglotBurda
from vae_cli.data.sets import omniglot_burda


def test_images_stand_upright_and_labels_are_alphabets(tmp_path):
    put(OmniglotBurda, tmp_path)
    source = OmniglotBurda(str(tmp_path)).load()
    for images, part in ((source.train, "train"), (source.test, "test")):
        values, alphabets = chardata_part(part)
        assert np.array_equal(images.values, values[:, None].astype(np.float32))
        assert images.labels.tolist() == alphabets.tolist()


def test_pixels_are_those_that_the_papers_code_makes(tmp_path):
    put(OmniglotBurda, tmp_path)
    # The authors' loader has images (N, 784) row by row, turned by a reshape in Fortran order.
    theirs = chardata()["data"].T.astype(np.float32).reshape(-1, 28, 28).reshape((-1, 784), order="F")
    assert np.array_equal(OmniglotBurda(str(tmp_path)).load().train.values.reshape(-1, 784), theirs)


def test_a_one_is_drawn_with_the_gray_value_as_its_probability(tmp_path):
    put(OmniglotBurda, tmp_path)
    data = OmniglotBurda(str(tmp_path), validation=2).splits()
    assert data.train.dynamic and data.train.scale == 1 and data.facts.support == "binary"
    gray, drawn = chardata_part("test")[0], data.test.images.numpy()[:, 0]
    assert set(np.unique(drawn)) == {0, 1}
    assert (drawn[gray == 0] == 0).all() and (drawn[gray == 1] == 1).all()
    error = np.sqrt((gray * (1 - gray)).sum()) / gray.size
    assert abs(drawn.mean() - gray.mean()) < 4 * error


def test_the_address_and_the_checksum_are_those_that_were_published(monkeypatch):
    monkeypatch.undo()
    (file,) = OmniglotBurda.files
    assert file.checksum == "md5:21ecaf34373511aa7691cf2e0802aa3d"
    assert file.mirrors == ("https://raw.githubusercontent.com/yburda/iwae/master/datasets/OMNIGLOT/chardata.mat",)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"data": np.zeros((783, 9))}, "its arrays data and target are (783, 9) and (50, 9)"),
        ({"target": np.eye(50)[:, :8]}, "its arrays data and target are (784, 9) and (50, 8)"),
        ({"testdata": np.full((784, 5), 1.5)}, "its array testdata has other values than those in [0, 1]"),
        ({"testdata": np.full((784, 5), np.nan)}, "its array testdata has other values than those in [0, 1]"),
        ({"data": np.zeros((784, 0)), "target": np.zeros((50, 0))}, "its array data has other values"),
        ({"data": np.array([["x"]], object)}, "its arrays data and target are (1, 1) and (50, 9)"),
        ({"testdata": None}, "testdata"),
    ],
)
def test_a_file_of_other_arrays_is_refused_in_a_line(tmp_path, monkeypatch, changes, complaint):
    arrays = {name: array for name, array in (chardata() | changes).items() if array is not None}
    files = {omniglot_burda.FILE: mat(**arrays)}
    trust(monkeypatch, OmniglotBurda, files)
    put(OmniglotBurda, tmp_path, files)
    assert complaint in error_of(OmniglotBurda(str(tmp_path)).load)
