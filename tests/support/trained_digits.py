"""A trained model of digits, the digits, and a folder of them."""

import pytest
from PIL import Image

from tests.support.image_commands import WIDE
from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.training.run import run as train


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    assert train(compose.compose("train", [*WIDE, "epochs=30"]), directory) == 0
    return directory


@pytest.fixture(scope="session")
def digits():
    """The test images as bytes, and their labels."""
    split = parts.dataset(compose.compose("train")).splits().test
    return split.images[:, 0].numpy(), split.labels.numpy()


@pytest.fixture
def folder(digits, tmp_path, monkeypatch):
    """Twelve of them as PNGs in two class folders."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(12):
        path = tmp_path / "mine" / "ba"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits[0][number]).save(path)
    return tmp_path / "mine"
