"""Lines and pictures of a training."""

import numpy as np
import pytest
from PIL import Image

from tests.support.training import settings, trained
from vae_cli.build import parts
from vae_cli.reporting import charts


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


@pytest.mark.parametrize(("prior", "has_border"), [("learned_normal", True), ("mixture_of_normals", False)])
def test_codes_are_drawn_beside_a_prior_of_independent_dimensions(prior, has_border, tmp_path, monkeypatch):
    borders, draw = [], charts.latent_codes
    monkeypatch.setattr(charts, "latent_codes", lambda *given: borders.append(given[2]) or draw(*given))
    trained(tmp_path, f"prior={prior}", "epochs=1", "report=true")
    assert (borders[0] is not None) == has_border
