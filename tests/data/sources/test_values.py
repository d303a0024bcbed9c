"""Arrays of vectors and sequences: what they are taken for, and what is refused."""

import numpy as np
import pytest
import torch

from vae_cli.data import Arrays
from vae_cli.data.batches import moments, quartiles
from vae_cli.errors import ConfigError, DataError

RANDOM = np.random.default_rng(0)
REAL = RANDOM.normal(size=(40, 3)) * [1, 100, 0.01] + [0, 5000, -1]


def saved(tmp_path, train, **others):
    np.savez(tmp_path / "x.npz", train=train, **others)
    return str(tmp_path / "x.npz")


def with_gaps(values, *places):
    values = np.array(values, np.float64)
    for place in places:
        values[place] = np.nan
    return values


@pytest.mark.parametrize(
    ("values", "settings", "support", "shape"),
    [
        (REAL, {}, "real", (3,)),
        (RANDOM.random((40, 3)), {}, "real", (3,)),
        (RANDOM.random((40, 3)), {"support": "unit"}, "unit", (3,)),
        (RANDOM.poisson(3, (40, 5)), {}, "counts", (5,)),
        (RANDOM.poisson(3, (40, 5)) - 2, {}, "real", (5,)),
        (RANDOM.poisson(3, (40, 5)).astype(float), {}, "real", (5,)),
        (RANDOM.poisson(3, (40, 5)).astype(float), {"support": "counts"}, "counts", (5,)),
        (RANDOM.random((40, 5)) < 0.5, {}, "binary", (5,)),
        ((RANDOM.random((40, 5)) < 0.5).astype(float), {}, "binary", (5,)),
        ((RANDOM.random((40, 5)) < 0.5).astype(int), {"support": "counts"}, "counts", (5,)),
        (RANDOM.normal(size=(40, 2, 16)), {"support": "real"}, "real", (2, 16)),
        (RANDOM.random((40, 2, 16)), {"support": "real"}, "real", (2, 16)),
        (RANDOM.poisson(3, (40, 2, 16)), {"support": "counts"}, "counts", (2, 16)),
        (RANDOM.normal(size=(40, 4, 6, 5)), {"support": "real"}, "real", (4, 6, 5)),
        (RANDOM.random((40, 8, 8)), {}, "unit", (1, 8, 8)),
        (with_gaps(REAL, (0, 1)), {}, "real", (3,)),
        (with_gaps(RANDOM.poisson(3, (40, 5)), (3, 3)), {"support": "counts"}, "counts", (5,)),
    ],
)
def test_arrays_are_taken_for_what_their_values_are_or_for_what_is_said(values, settings, support, shape, tmp_path):
    data = Arrays(saved(tmp_path, values), **settings).splits()
    assert (data.facts.support, data.facts.shape) == (support, shape)
    assert data.facts.standardize == ("zscore" if support == "real" else "none")
    assert data.facts.is_image == (len(shape) == 3 and support == "unit")
    assert data.facts.has_missing == bool(np.isnan(values.astype(float)).any())
    every = torch.cat([split.select(slice(None)).double() for split in (data.train, data.validation, data.test)])
    found, wanted = (np.sort(np.ravel(each)) for each in (every.numpy(), np.asarray(values, np.float64)))
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "settings", "message"),
    [
        (with_gaps(REAL, (5,)), {}, "vectors without any value: row 5 .counted from 0.; remove them"),
        (with_gaps(REAL, (5, 1)), {"missing": "error"}, r"1 missing value \(NaN\), and dataset.missing=error"),
        (np.where(REAL > 5100, np.inf, REAL), {}, "infinite value in row .*; correct it, or make it NaN"),
        (np.column_stack([REAL, np.full(40, 7.0)]), {}, r"value \[3\] is the same in all examples; leave it out"),
        (REAL + 1e9, {}, "float32 hardly tells apart; subtract its mean first"),
        (np.array([["a", "b"]] * 5), {}, "save numbers"),
        (np.zeros((0, 3)), {}, "is empty"),
        (REAL, {"support": "counts"}, "choose dataset.support=real"),
        (RANDOM.poisson(9, (40, 5)), {"support": "binary"}, "choose dataset.support=counts"),
        (REAL, {"support": "levels256"}, "is of images; choose real"),
        (RANDOM.poisson(3, (40, 5)) + 2**30, {}, "set dataset.support=real"),
    ],
)
def test_values_that_cannot_be_modelled_are_refused_in_a_line_with_the_fix(values, settings, message, tmp_path):
    with pytest.raises(DataError, match=message) as refused:
        Arrays(saved(tmp_path, values), **settings).load()
    assert "\n" not in str(refused.value)


def test_a_way_to_binarize_is_refused_for_values_that_are_no_images(tmp_path):
    with pytest.raises(ConfigError, match="dataset.binarize=threshold is of images"):
        Arrays(saved(tmp_path, REAL), binarize="threshold").load()


def test_splits_of_unlike_width_are_refused(tmp_path):
    with pytest.raises(DataError, match="vectors of 2, but train of 3"):
        Arrays(saved(tmp_path, REAL, test=REAL[:, :2])).load()


def test_whole_numbers_in_floats_are_noted_and_missing_values_counted(tmp_path):
    notes = Arrays(saved(tmp_path, RANDOM.poisson(3, (40, 5)).astype(float))).load().notes
    assert notes == ("all values are whole numbers; if they count something, set dataset.support=counts",)
    notes = Arrays(saved(tmp_path, with_gaps(REAL, (0, 1), (7, 2)))).load().notes
    assert notes == ("2 of 120 values are missing (1.7%)",)


def test_moments_and_quartiles_are_numpys_over_what_is_there(tmp_path):
    values = RANDOM.normal(size=(500, 3)) * [1, 100, 0.01] + [0, 5000, -1]
    values[RANDOM.random(values.shape) < 0.3] = np.nan
    values = values[~np.isnan(values).all(1)]
    train = Arrays(saved(tmp_path, values), validation=0).splits().train
    x = train.select(slice(None)).double().numpy()
    for found, expected in zip(moments(train, is_centered=True), (np.nanmean(x, 0), np.nanstd(x, 0))):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    low, middle, high = np.nanquantile(x, [0.25, 0.5, 0.75], axis=0)
    for found, expected in zip(quartiles(train), (middle, (high - low) / 1.34898)):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_a_mapped_file_stays_on_the_disk(tmp_path):
    np.save(tmp_path / "x.npy", REAL.astype(np.float32))
    data = Arrays(str(tmp_path / "x.npy")).splits()
    assert data.train.mapped and data.facts.support == "real"
