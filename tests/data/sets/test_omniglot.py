"""Omniglot."""

import numpy as np

from tests.support.archives import drawing, put
from vae_cli.data import Omniglot


def test_characters_are_bright_on_dark(tmp_path):
    put(Omniglot, tmp_path)
    train = Omniglot(str(tmp_path), image_size=105).load().train
    for values, number in zip(train.values[:, 0], (1, 2, 3, 4, 5, 6)):
        assert np.array_equal(values, np.where(drawing(number), 0, 255))
    small = Omniglot(str(tmp_path)).load().train.values
    assert small.max() > 200 and (small[:, 0, [0, -1]] == 0).all()


def test_characters_for_the_test_are_none_of_those_for_training(tmp_path):
    put(Omniglot, tmp_path)
    source = Omniglot(str(tmp_path)).load()
    assert source.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert source.test.labels.tolist() == [3, 3, 4, 4]
