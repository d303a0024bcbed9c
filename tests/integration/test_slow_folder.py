"""Five thousand pictures as people have them, from files to a trained model, beside the same pictures as arrays."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

from vae_cli.config import compose
from vae_cli.data import Folder, decoded
from vae_cli.training.run import run as train

KINDS = ("png", "jpg", "webp", "bmp", "gif")
MODES = ("L", "RGB", "RGBA", "P", "1", "CMYK")


def draw(number, rng):
    """A disc, a square or a triangle on a picture of any size; its class and the picture."""
    width, height = (int(side) for side in rng.integers(40, 300, 2))
    picture = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(0, 100, 3)))
    x, y, r = width / 2, height / 2, min(width, height) * rng.uniform(0.2, 0.45)
    pen, color = ImageDraw.Draw(picture), tuple(int(v) for v in rng.integers(120, 256, 3))
    shape = ("disc", "square", "triangle")[number % 3]
    if shape == "disc":
        pen.ellipse([x - r, y - r, x + r, y + r], fill=color)
    elif shape == "square":
        pen.rectangle([x - r, y - r, x + r, y + r], fill=color)
    else:
        pen.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
    return shape, picture


def write(root, count):
    rng = np.random.default_rng(0)
    for number in range(count):
        shape, picture = draw(number, rng)
        kind, mode = KINDS[number % 5], MODES[number // 5 % 6]
        path = root / shape / f"{number:05d}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "CMYK" and kind != "jpg" or kind == "jpg" and mode in ("RGBA", "P", "1"):
            mode = "RGB"
        picture.convert(mode).save(path)


def run(directory, *overrides):
    shared = ["encoder=conv", "decoder=conv", "epochs=2", "sample_every=0", "device=cpu"]
    train(compose.compose("train", [*shared, *overrides]), directory)
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    seconds = [line["seconds"] for line in lines if "seconds" in line]
    return json.loads((directory / "summary.json").read_text())["test"], min(seconds)


@pytest.mark.slow
def test_5000_mixed_pictures_train_from_files_from_the_cache_and_as_arrays_alike(tmp_path, monkeypatch, capsys):
    root = tmp_path / "pictures"
    write(root, 5000)
    here = [f"dataset.path={root}", f"dataset.cache={tmp_path / 'cache'}"]
    first, _ = run(tmp_path / "first", "dataset=folder", *here)
    values = Folder(str(root), cache=str(tmp_path / "cache")).load().train.values
    np.savez(tmp_path / "x.npz", train=np.array(values))

    def fail(*arguments):
        raise AssertionError("decoded again")

    monkeypatch.setattr(decoded, "_make", fail)
    times = {"folder": [], "arrays": []}
    for turn in range(2):
        metrics, seconds = run(tmp_path / f"folder{turn}", "dataset=folder", *here)
        times["folder"].append(seconds)
        assert metrics == first
        metrics, seconds = run(tmp_path / f"arrays{turn}", "dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}")
        times["arrays"].append(seconds)
        assert metrics == first
    with capsys.disabled():
        print(f"\nseconds an epoch: {times}")
