"""Splitting, binarizing and describing a data set."""

import typing

import numpy as np
import pytest
import torch

import vae_cli.data
from tests.support.files import error_of
from vae_cli.constraints import accepts
from vae_cli.data import AnnData, DataFacts, Dataset, Digits, Frame, Images, Source, Table
from vae_cli.data.base import as_split, difference
from vae_cli.errors import ConfigError

BITS = np.arange(2, dtype=np.uint8)


class Numbered(Dataset):
    """Examples whose first value is their number."""

    name = "numbered"

    def __init__(self, count=50, shape=(1, 2, 2), labels=True, splits=("train",), **options):
        super().__init__(**options)
        self.count, self.shape, self.labels, self.own = count, shape, labels, splits

    def load(self):
        def images(start):
            numbers = np.arange(start, start + self.count, dtype=np.uint8)
            values = np.zeros((self.count, *self.shape), np.uint8) + numbers.reshape(-1, *[1] * len(self.shape))
            return Images(values, numbers.astype(np.int64) % 5 if self.labels else None)

        parts = {split: images(self.count * place) for place, split in enumerate(self.own)}
        return Source(parts["train"], parts.get("validation"), parts.get("test"), "levels256")


def numbers(split):
    return split.select(slice(None)).flatten(1)[:, 0].tolist()


def test_held_out_examples_are_the_same_every_time_and_every_part_keeps_the_order():
    first, again = Numbered().splits(), Numbered().splits()
    parts = [numbers(split) for split in (first.train, first.validation, first.test)]
    assert parts == [numbers(split) for split in (again.train, again.validation, again.test)]
    assert sorted(sum(parts, [])) == list(range(50)) and list(map(len, parts)) == [41, 4, 5]
    assert all(part == sorted(part) for part in parts)


def test_the_numbers_of_digits_are_those_of_every_version():
    facts = Digits().splits().facts
    assert facts == DataFacts("digits", (1, 8, 8), "levels256", 10, 1417, "42a3e6db")


def test_validation_is_a_number_the_sets_own_or_nothing():
    assert len(Numbered(validation=7).splits().validation) == 7
    assert Numbered(validation=0).splits().validation is None
    assert "dataset.validation=45 leaves nothing" in error_of(Numbered(validation=45).splits, ConfigError)
    own = {"splits": ("train", "validation", "test")}
    data = Numbered(**own).splits()
    assert numbers(data.validation) == list(range(50, 100)) and numbers(data.test) == list(range(100, 150))
    assert numbers(Numbered(validation=0, **own).splits().train) == list(range(100))
    assert "validation split of their own with 50" in error_of(Numbered(validation=7, **own).splits, ConfigError)


@pytest.mark.parametrize("shape", [(3,), (2, 5), (1, 4, 4)])
@pytest.mark.parametrize("binarize", ["none", "threshold", "static", "dynamic"])
def test_an_example_has_any_shape_and_is_binarized_as_asked(shape, binarize):
    data = Numbered(shape=shape, binarize=binarize).splits()
    assert data.facts.shape == shape and data.facts.support == ("levels256" if binarize == "none" else "binary")
    assert data.train.dynamic == (binarize == "dynamic") and not data.test.dynamic
    if binarize != "none":
        assert np.isin(data.test.select(slice(None)).numpy(), BITS).all() and data.test.scale == 1
    again = Numbered(shape=shape, binarize=binarize).splits()
    assert torch.equal(data.test.select(slice(None)), again.test.select(slice(None)))


def test_there_are_classes_only_if_every_split_has_labels():
    assert Numbered().splits().facts.classes == 5 and Numbered(labels=False).splits().facts.classes == 0
    source = Numbered(splits=("train", "test")).load()
    unlabeled = Source(source.train, None, Images(source.test.values), "levels256")
    assert Numbered().splits(unlabeled).facts.classes == 0


def test_sets_with_other_examples_or_labels_have_other_digests():
    digests = [Numbered(**options).splits().facts.digest for options in ({}, {"count": 51}, {"labels": False}, {})]
    assert len(set(digests)) == 3 and digests[0] == digests[3]


@pytest.mark.parametrize(
    "wrong", [{"shape": ()}, {"shape": (1, 0)}, {"classes": -1}, {"size": 0}, {"support": "colors"}, {"size": 2.5}]
)
def test_facts_that_no_data_can_have_are_refused(wrong):
    facts = {"name": "x", "shape": (1, 2, 2), "support": "binary", "classes": 0, "size": 3}
    with pytest.raises((ValueError, TypeError)):
        DataFacts(**facts | wrong)


def test_every_data_set_says_what_its_settings_accept():
    classes = [value for value in vars(vae_cli.data).values() if isinstance(value, type) and issubclass(value, Dataset)]
    wrong = {"binarize": "maybe", "validation": -1, "image_size": 0, "channels": 2, "on_error": "ignore", "subset": "x"}
    for cls in set(classes) - {Dataset, Frame}:  # which passes on its keys
        hints = typing.get_type_hints(cls.__init__, include_extras=True)
        assert "validation" in hints and ("binarize" in hints or cls in (AnnData, Table))
        assert not any(accepts(hints[key], value) for key, value in wrong.items() if key in hints)
        assert accepts(hints.get("binarize", str), "dynamic") and accepts(hints["validation"], None)


def test_factors_are_named_and_counted_over_every_split_only_if_all_have_them():
    def images(*factors):
        return Images(np.zeros((len(factors), 1, 2, 2), np.uint8), factors=np.array(factors))

    class Own(Numbered):
        def load(self):
            return self.source

    own, names = Own(validation=1), ("size", "place")
    own.source = Source(images([0, 0], [1, 0], [0, 1]), None, images([0, 4]), "binary", factor_names=names)
    facts = own.splits().facts
    assert facts.factor_names == names and facts.factor_sizes == (2, 5)
    own.source = Source(own.source.train, None, Images(np.zeros((2, 1, 2, 2), np.uint8)), "binary", factor_names=names)
    assert own.splits().facts.factor_names == () == own.splits().facts.factor_sizes


def test_facts_of_a_checkpoint_without_factors_are_those_of_a_set_without():
    stored = {"name": "digits", "shape": (1, 8, 8), "support": "levels256", "classes": 10, "size": 5, "digest": "x"}
    assert DataFacts.of(stored).factor_names == () and difference(stored, stored | {"factor_names": ("a",)}) == (
        "other factors"
    )


def test_binarized_images_keep_their_factors_and_their_place_in_the_file():
    numbers, factors = np.array([7, 3]), np.array([[1, 2], [3, 4]])
    gray = Images(np.array([[[[9]]], [[[250]]]], np.uint8), numbers=numbers, factors=factors)
    split = as_split(gray, "levels256", "threshold", "test")
    assert split.factors.tolist() == factors.tolist() and split.in_file.tolist() == [7, 3]
    assert split.images.flatten().tolist() == [0, 1]
