"""dSprites."""

import numpy as np

from tests.support.archives import put, trust
from tests.support.factor_archives import dsprites
from tests.support.files import error_of
from vae_cli.data import DSprites
from vae_cli.data.mapped import is_mapped
from vae_cli.data.sets.dsprites import ARCHIVE


def placed(tmp_path, monkeypatch, content):
    trust(monkeypatch, DSprites, {ARCHIVE: content})
    put(DSprites, tmp_path, {ARCHIVE: content})
    return DSprites(str(tmp_path))


def test_images_and_factors_are_those_of_the_file_whose_pickle_is_not_read(tmp_path, monkeypatch):
    content, images, factors = dsprites()
    source = placed(tmp_path, monkeypatch, content).load()
    assert is_mapped(source.train.values) and np.array_equal(source.train.values[:, 0], images)
    assert np.array_equal(source.train.factors, factors[:, 1:]) and source.train.labels is None
    assert source.support == "binary" and source.factor_names == ("shape", "scale", "orientation", "x", "y")
    data = DSprites(str(tmp_path)).splits()
    assert data.train.mapped and (data.train.factors.diff(dim=0)[:, 0] < 0).sum() > 5  # shuffled; in the grid none
    place = np.ravel_multi_index(data.train.factors.numpy().T, (2, 3, 4, 2, 2))
    assert np.array_equal(data.train.select(slice(None))[:, 0].numpy(), images[place])
    assert data.facts.factor_sizes == (2, 3, 4, 2, 2) and len(data.train) + len(data.validation) + len(data.test) == 96


def test_a_file_that_is_cut_short_or_holds_something_else_is_named(tmp_path, monkeypatch):
    content, images, factors = dsprites()
    assert f"{ARCHIVE} cannot be read" in error_of(placed(tmp_path, monkeypatch, content[: len(content) // 2]).load)
    for wrong in ({"imgs": images.astype(np.float32)}, {"latents_classes": factors[:-1]}, {"imgs": images[0]}):
        path = tmp_path / "wrong.npz"
        np.savez(path, **{"imgs": images, "latents_classes": factors} | wrong)
        assert f"{ARCHIVE} cannot be read" in error_of(placed(tmp_path, monkeypatch, path.read_bytes()).load)


def test_pickled_factors_are_refused(tmp_path, monkeypatch):
    _, images, factors = dsprites()
    np.savez(tmp_path / "pickled.npz", imgs=images, latents_classes=factors.astype(object))
    content = (tmp_path / "pickled.npz").read_bytes()
    assert "cannot be read" in error_of(placed(tmp_path, monkeypatch, content).load)
