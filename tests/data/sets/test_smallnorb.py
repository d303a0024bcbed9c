"""smallNORB: its format, and its two parts."""

import gzip

import numpy as np
import pytest

from tests.support.archives import put, trust
from tests.support.factor_archives import norb, smallnorb
from tests.support.files import error_of
from vae_cli.data import SmallNORB
from vae_cli.data.sets.smallnorb import CATEGORIES, STEMS


def files(**changed):
    made = {f"{part}_{kind}": content for part in STEMS for kind, content in smallnorb(part)[0].items()} | changed
    return {f"{STEMS[part]}-{kind}.mat.gz": made[f"{part}_{kind}"] for part in STEMS for kind in ("dat", "cat", "info")}


@pytest.fixture
def placed(tmp_path, monkeypatch):
    def place(content, **options):
        trust(monkeypatch, SmallNORB, content)
        put(SmallNORB, tmp_path, content)
        return SmallNORB(str(tmp_path), validation=5, **options)

    return place


def test_both_parts_have_the_first_cameras_images_with_factors_and_categories(placed):
    source = placed(files(), image_size=8).load()
    for part, images in (("train", source.train), ("test", source.test)):
        _, values, factors = smallnorb(part)
        assert np.array_equal(images.values[:, 0], values[:, 0]) and np.array_equal(images.factors, factors)
        assert np.array_equal(images.labels, factors[:, 0])
    facts = placed(files()).splits().facts
    assert facts.shape == (1, 64, 64) and facts.classes == 5 and facts.class_names == CATEGORIES
    assert facts.factor_sizes == (5, 10, 9, 18, 6) and facts.factor_names[3] == "azimuth"


def test_the_published_files_have_a_checksum_each():
    assert len({file.checksum for file in SmallNORB.files}) == 6 == len({file.name for file in SmallNORB.files})


@pytest.mark.parametrize(
    "changed",
    [
        {"train_dat": gzip.compress(b"no such format at all")},
        {"train_dat": norb(np.zeros((40, 3, 8, 8), np.uint8))},
        {"test_dat": norb(np.zeros((39, 2, 8, 8), np.uint8))},
        {"train_cat": norb(np.zeros(39, np.int32))},
        {"train_info": b"no gzip"},
        {"train_dat": b"no gzip"},
    ],
)
def test_a_file_that_holds_something_else_is_named(changed, placed):
    assert "-dat.mat.gz cannot be read" in error_of(placed(files(**changed), image_size=8).load)
