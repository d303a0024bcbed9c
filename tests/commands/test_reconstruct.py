"""vae-reconstruct: grids, folders and arrays; and what both commands of a person's own images refuse."""

import numpy as np
import pytest
from PIL import Image

from tests.support.image_commands import ORDER, reconstructed
from vae_cli import cli
from vae_cli.build import parts, trained
from vae_cli.config import compose
from vae_cli.errors import ConfigError


def test_reconstructions_look_like_the_images(run, folder, digits, tmp_path):
    """Each is nearer to its own image than to any other, nearly always."""
    output = reconstructed(run, tmp_path / "r.npz", f"input={folder}", "format=npz")
    with np.load(output) as archive:
        rebuilt, files = archive["images"], archive["file"]
    originals = digits[0][:12][ORDER] / 255
    assert rebuilt.shape == (12, 1, 8, 8) and len(files) == 12
    distance = ((rebuilt[:, None, 0] - originals[None]) ** 2).sum((2, 3))
    assert np.mean(distance.argmin(1) == np.arange(12)) > 0.8


def test_png_fills_a_folder_with_the_files_own_names(run, folder, tmp_path):
    output = reconstructed(run, tmp_path / "rebuilt", f"input={folder}", "format=png")
    names = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert names == sorted(f"{'ba'[n % 2]}/{n:02d}.png" for n in range(12))
    with np.load(reconstructed(run, tmp_path / "r.npz", f"input={folder}", "format=npz")) as archive:
        first = archive["images"][0, 0]
    np.testing.assert_array_equal(np.asarray(Image.open(output / "a" / "01.png")), np.round(first * 255))
    with pytest.raises(ConfigError, match="holds other images"):
        reconstructed(run, output, "format=png", "limit=3")


def test_files_of_one_name_and_two_kinds_keep_apart(run, folder, digits, tmp_path):
    Image.fromarray(digits[0][20]).save(folder / "a" / "01.bmp")
    output = reconstructed(run, tmp_path / "rebuilt", f"input={folder}", "format=png")
    assert {"01.bmp.png", "01.png.png", "03.png"} <= {path.name for path in output.rglob("*.png")}


def test_a_grid_shows_originals_above_and_at_most_64_unless_asked(run, tmp_path):
    grid = np.asarray(Image.open(reconstructed(run, tmp_path / "x.png")))
    assert grid.shape[1] == 8 * 58 + 2
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.safetensors", "cpu")
    first = parts.dataset(settings).splits().test.images[0, 0].numpy().repeat(7, 0).repeat(7, 1)
    np.testing.assert_array_equal(grid[2:58, 2:58], first)
    large = np.asarray(Image.open(reconstructed(run, tmp_path / "y.png", "limit=72")))
    assert large.shape[0] > grid.shape[0]


def test_a_draw_differs_from_the_mean_and_depends_on_the_seed(run, tmp_path):
    def images(*settings):
        with np.load(reconstructed(run, tmp_path / "r.npz", "format=npz", "limit=5", *settings)) as archive:
            return archive["images"]

    mean, draw = images(), images("draw=true")
    assert not np.allclose(mean, draw) and np.array_equal(draw, images("draw=true"))
    assert not np.array_equal(draw, images("draw=true", "seed=1"))


@pytest.mark.parametrize("setting", ["format=gif", "limit=0", "input=", "draw=2", "split=test", "seed=-1"])
@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_wrong_settings_are_refused_by_name(command, setting, run):
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=key):
        compose.compose(command, [f"checkpoint={run}", setting])


@pytest.mark.parametrize(("command", "written"), [("reconstruct", "reconstructions.png"), ("encode", "codes.npz")])
def test_the_commands_write_where_they_are_and_answer_in_one_line(
    command, written, run, folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for images, status in ((folder, 0), ("nowhere", 1)):
        with pytest.raises(SystemExit) as ended:
            getattr(cli, command)([f"checkpoint={run}", f"input={images}"])
        assert ended.value.code == status
    assert [path.name for path in (tmp_path / "here").iterdir()] == [written]
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"vae-{command}: error: input=nowhere")
