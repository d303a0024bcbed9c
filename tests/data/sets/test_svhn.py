"""Street View House Numbers."""

import numpy as np

from tests.support.archives import MATS, put, svhn_part
from vae_cli.data import SVHN


def test_channels_come_first_and_zeros_are_labeled_0(tmp_path):
    put(SVHN, tmp_path)
    source = SVHN(str(tmp_path)).load()
    for images, file in zip((source.train, source.test), MATS):
        values, labels = svhn_part(file)
        assert np.array_equal(images.values, np.moveaxis(values, (3, 2), (0, 1)))
        assert images.labels.tolist() == [*range(1, 10), 0] * (len(labels) // 10)
