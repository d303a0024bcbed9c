"""Lines and pictures of a training."""

import numpy as np
from PIL import Image

from tests.support.training import settings, trained
from vae_cli.build import parts


def test_keys_of_a_replaced_class_are_dropped_and_named(tmp_path, capsys):
    trained(tmp_path, "optimizer._target_=torch.optim.Adagrad", "epochs=1")
    assert "dropped     optimizer.betas" in capsys.readouterr().out
    assert "betas" not in (tmp_path / "config.yaml").read_text()


def test_pictures_are_grids_of_enlarged_digits_with_originals_above(digits_run):
    samples = Image.open(digits_run / "samples.png")
    assert samples.mode == "L" and samples.size == (8 * 58 + 2, 8 * 58 + 2)
    shown = np.asarray(Image.open(digits_run / "reconstructions.png"))
    first = shown[2 : 2 + 56 : 7, 2 : 2 + 56 : 7]
    x = parts.dataset(settings()).splits().test.images[0, 0]
    np.testing.assert_array_equal(first, x.numpy())
