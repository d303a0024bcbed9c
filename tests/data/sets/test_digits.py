"""The digits of scikit-learn."""

import numpy as np

from vae_cli.data import Digits


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
