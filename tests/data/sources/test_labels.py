"""Labels and factors in the arrays of a numpy file."""

import numpy as np
import pytest

from vae_cli.data import Arrays, Images
from vae_cli.data.sources.labels import factor_names, with_labels
from vae_cli.data.sources.numpy_file import NamedArray
from vae_cli.errors import DataError

RNG = np.random.default_rng(0)
IMAGES = Images(np.zeros((6, 1, 2, 2), np.uint8))
FACTORS = np.arange(12).reshape(6, 2) % 3


def named(values):
    return NamedArray("x.npz: array train_labels", values)


def test_one_number_for_each_image_is_a_label_and_several_are_factors():
    labeled, plain = with_labels(IMAGES, named(np.arange(6, dtype=np.uint8))), with_labels(IMAGES, None)
    assert labeled.labels.tolist() == list(range(6)) and labeled.labels.dtype == np.int64 and labeled.factors is None
    assert plain.labels is None and plain.factors is None
    several = with_labels(IMAGES, named(FACTORS.astype(np.uint8)))
    assert several.labels is None and several.factors.dtype == np.int64 and (several.factors == FACTORS).all()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(6), "labels are integers"),
        (np.zeros((6, 2)), "labels are integers"),
        (np.zeros(5, int), "is 5 for 6 images; give each image one label, .* or a number for each of several factors"),
        (np.zeros((5, 2), int), "is 5x2 for 6 images"),
        (np.zeros((6, 1), int), "is 6x1 for 6 images"),
        (np.zeros((6, 2, 2), int), "is 6x2x2 for 6 images"),
        (np.array(3), "is a single number for 6 images"),
        (np.eye(6, dtype=int), "one-hot; save labels.argmax"),
        (-np.ones((6, 2), int), "negative label, -1"),
    ],
)
def test_what_is_neither_labels_nor_factors_is_refused(values, message):
    with pytest.raises(DataError, match=message):
        with_labels(IMAGES, named(values))


def test_factors_have_the_names_that_are_given_or_numbers():
    splits = [with_labels(IMAGES, named(FACTORS)), IMAGES]
    assert factor_names(splits, {}) == ("factor0", "factor1") and factor_names([IMAGES], {}) == ()
    for names in (np.array(["size", "höhe"]), np.array([b"size", "höhe".encode()])):
        assert factor_names(splits, {"factor_names": named(names)}) == ("size", "höhe")
        assert factor_names([IMAGES], {"factor_names": named(names)}) == ()
    for wrong in (np.array(["size"]), np.arange(2), np.array(["a", "a"])):
        with pytest.raises(DataError, match="not a different text for each of the 2 factors"):
            factor_names(splits, {"factor_names": named(wrong)})


def test_names_in_bytes_of_another_encoding_are_refused_with_the_fix():
    names = {"factor_names": named(np.char.encode(["size", "höhe"], "latin-1"))}
    with pytest.raises(DataError, match="array train_labels holds bytes that are not UTF-8; .*numpy.char.decode"):
        factor_names([with_labels(IMAGES, named(FACTORS))], names)


def test_names_that_are_python_objects_count_only_beside_factors_and_the_error_has_the_fix(tmp_path):
    file, names = tmp_path / "x.npz", np.array(["fine", "coarse"], object)
    values, factors = np.zeros((40, 2, 2), np.uint8), np.arange(80).reshape(40, 2) % 4
    values[::2] = 1
    for further in ({}, {"train_labels": factors[:, 0]}):
        np.savez(file, train=values, factor_names=names, **further)
        assert Arrays(path=str(file)).splits().facts.factor_names == ()
    np.savez(file, train=values, train_labels=factors, factor_names=names)
    with pytest.raises(DataError, match=r"array factor_names holds Python objects.*; save it .astype\(str\)"):
        Arrays(path=str(file)).splits()


def test_splits_with_unlike_factors_are_refused():
    splits = [with_labels(IMAGES, named(FACTORS)), with_labels(IMAGES, named(np.zeros((6, 3), int)))]
    with pytest.raises(DataError, match="2 and 3 factors"):
        factor_names(splits, {})


@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_factors_of_a_file_reach_every_split_in_the_order_of_the_images(tmp_path, kind):
    shape = (40, 2, 2) if kind == "images" else (40, 3)
    values = np.zeros(shape, np.uint8) + np.arange(40, dtype=np.uint8).reshape(-1, *[1] * (len(shape) - 1))
    labels = np.stack([np.arange(40) % 4, np.arange(40) // 4], 1)
    np.savez(tmp_path / "x.npz", train=values, train_labels=labels, factor_names=np.array(["fine", "coarse"]))
    data = Arrays(str(tmp_path / "x.npz")).splits()
    assert data.facts.factor_names == ("fine", "coarse") and data.facts.factor_sizes == (4, 10)
    assert data.facts.classes == 0
    for split in (data.train, data.validation, data.test):
        number = split.select(slice(None)).flatten(1)[:, 0].long()
        assert split.labels is None and (split.factors[:, 0] + 4 * split.factors[:, 1] == number).all()


def test_other_factors_make_another_digest(tmp_path):
    digests = []
    for labels in (FACTORS, FACTORS[::-1], np.arange(6)):
        np.savez(tmp_path / "x.npz", train=np.ones((6, 3, 3), np.uint8), train_labels=labels)
        digests.append(Arrays(str(tmp_path / "x.npz")).splits().facts.digest)
    assert len(set(digests)) == 3
