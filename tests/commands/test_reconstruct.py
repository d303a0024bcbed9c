"""vae-reconstruct and vae-encode: a person's own images through a trained model, prepared as the training's were."""

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli import cli
from vae_cli.build import parts, trained
from vae_cli.commands import encode, image_files, reconstruct, sample
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError, UserError
from vae_cli.training.run import run as train

WIDE = [
    "report=false",
    "encoder.hidden=[64]",
    "decoder.hidden=[64]",
    "latent_dim=8",
    "device=cpu",
    "optimizer.lr=3e-3",
    "batch_size=64",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("runs") / "run"
    assert train(compose.compose("train", [*WIDE, "epochs=30"]), directory) == 0
    return directory


@pytest.fixture(scope="module")
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


ORDER = [*range(1, 12, 2), *range(0, 12, 2)]  # of the files: folder a holds the odd ones


def encoded(run, tmp_path, *settings):
    output = tmp_path / "codes.npz"
    encode.run(compose.compose("encode", [f"checkpoint={run}", f"output={output}", *settings]))
    with np.load(output) as archive:
        return dict(archive)


def reconstructed(run, output, *settings):
    reconstruct.run(compose.compose("reconstruct", [f"checkpoint={run}", f"output={output}", *settings]))
    return output


def test_codes_are_the_posteriors_in_input_order(run, tmp_path):
    found = encoded(run, tmp_path)
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.pt", "cpu")
    split = parts.dataset(settings).splits().test
    with torch.no_grad():
        q = model.encode(split.images.float() / 255)
    np.testing.assert_allclose(found["mean"], q.mean, atol=1e-5)
    np.testing.assert_allclose(found["std"], q.stddev, rtol=1e-4)
    np.testing.assert_array_equal(found["label"], split.labels)
    normal = (found["sample"] - found["mean"]) / found["std"]
    assert abs(normal.mean()) < 0.1 and abs(normal.std() - 1) < 0.1


def test_a_folder_of_pngs_gives_the_codes_of_the_same_arrays_with_their_file_names(run, folder, digits, tmp_path):
    found = encoded(run, tmp_path, f"input={folder}")
    assert found["file"].tolist() == [f"{'ba'[n % 2]}/{n:02d}.png" for n in ORDER]
    assert found["label"].tolist() == [0] * 6 + [1] * 6
    expected = encoded(run, tmp_path, "limit=12")
    np.testing.assert_allclose(found["mean"], expected["mean"][ORDER], atol=1e-5)
    np.savez(tmp_path / "mine.npz", digits[0][:12])
    arrays = encoded(run, tmp_path, f"input={tmp_path / 'mine.npz'}")
    np.testing.assert_allclose(arrays["mean"], expected["mean"], atol=1e-5)
    assert "file" not in arrays and "label" not in arrays


def test_neither_chunks_nor_limits_change_a_code(run, tmp_path):
    whole, few = encoded(run, tmp_path, "input=train"), encoded(run, tmp_path, "input=train", "limit=3")
    for name in ("mean", "std", "sample"):
        np.testing.assert_allclose(whole[name][:3], few[name], atol=1e-5)
    assert len(whole["mean"]) == 1417
    assert not np.allclose(few["sample"], encoded(run, tmp_path, "input=train", "limit=3", "seed=1")["sample"])


def test_reconstructions_look_like_the_images(run, folder, digits, tmp_path):
    """Each is nearer to its own image than to any other, nearly always."""
    output = reconstructed(run, tmp_path / "r.npz", f"input={folder}", "format=npz")
    with np.load(output) as archive:
        found, files = archive["images"], archive["file"]
    originals = digits[0][:12][ORDER] / 255
    assert found.shape == (12, 1, 8, 8) and len(files) == 12
    distance = ((found[:, None, 0] - originals[None]) ** 2).sum((2, 3))
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
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.pt", "cpu")
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


def test_pixels_are_binarized_as_in_training(digits, tmp_path):
    settings = [*WIDE, "epochs=1", "dataset.binarize=threshold"]
    assert train(compose.compose("train", settings), tmp_path / "run") == 0
    np.savez(tmp_path / "mine.npz", digits[0][:9])
    grid = np.asarray(Image.open(reconstructed(tmp_path / "run", tmp_path / "x.png", f"input={tmp_path / 'mine.npz'}")))
    expected = ((digits[0][0] >= 128) * 255).astype(np.uint8).repeat(7, 0).repeat(7, 1)
    np.testing.assert_array_equal(grid[2:58, 2:58], expected)


def test_a_model_of_binary_data_sees_pictures_in_black_and_white(digits, tmp_path):
    binary = (digits[0] > 127).astype(np.uint8)
    np.savez(tmp_path / "train.npz", train=binary, test=binary[:10])
    data = ["dataset=arrays", f"dataset.path={tmp_path / 'train.npz'}"]
    assert train(compose.compose("train", [*WIDE, *data, "epochs=1"]), tmp_path / "run") == 0
    np.savez(tmp_path / "gray.npz", digits[0][:9])
    gray, black = (
        encoded(tmp_path / "run", tmp_path, f"input={tmp_path / name}") for name in ("gray.npz", "train.npz")
    )
    np.testing.assert_allclose(gray["mean"], black["mean"][:9], atol=1e-5)


def test_a_flows_moments_are_those_of_its_draws(tmp_path):
    assert train(compose.compose("train", [*WIDE, "posterior=flow", "epochs=2"]), tmp_path / "run") == 0
    found = encoded(tmp_path / "run", tmp_path, "limit=20")
    model, _, settings, _ = trained.load(tmp_path / "run" / "checkpoints" / "best.pt", "cpu")
    x = parts.dataset(settings).splits().test.images[:20].float() / 255
    with torch.no_grad():
        z, _ = model.encode(x).rsample_and_log_prob(torch.randn(20_000, 20, 8))
    error = 5 * found["std"] / 200**0.5 + 1e-3
    assert (np.abs(found["mean"] - z.mean(0).numpy()) < error).all()
    np.testing.assert_allclose(found["std"], z.std(0), rtol=0.35)


def test_a_conditional_model_asks_for_labels_that_it_knows(folder, digits, tmp_path):
    assert train(compose.compose("train", [*WIDE, "conditional=true", "epochs=1"]), tmp_path / "run") == 0
    with pytest.raises(DataError, match="name them by those labels, 0 to 9"):
        encoded(tmp_path / "run", tmp_path, f"input={folder}")
    np.savez(tmp_path / "mine.npz", digits[0][:9])
    with pytest.raises(DataError, match="needs a label for every image"):
        encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'mine.npz'}")
    np.savez(tmp_path / "mine.npz", train=digits[0][:9], labels=np.arange(9) + 5)
    with pytest.raises(DataError, match="labels up to 13, the model knows 0 to 9"):
        encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'mine.npz'}")


def test_images_that_do_not_fit_are_refused(run, tmp_path):
    np.savez(tmp_path / "large.npz", np.zeros((4, 9, 9), np.uint8) + 7)
    with pytest.raises(DataError, match="these images are 1x9x9, the model's are 1x8x8"):
        encoded(run, tmp_path, f"input={tmp_path / 'large.npz'}")
    (tmp_path / "empty").mkdir()
    for given in ("nowhere", "empty"):
        with pytest.raises(DataError, match=given):
            encoded(run, tmp_path, f"input={tmp_path / given}")


@pytest.mark.parametrize("setting", ["format=gif", "limit=0", "input=", "draw=2", "split=test", "seed=-1"])
@pytest.mark.parametrize("command", ["reconstruct", "encode"])
def test_wrong_settings_are_refused_by_name(command, setting, run):
    key = setting.partition("=")[0]
    with pytest.raises(ConfigError, match=key):
        compose.compose(command, [f"checkpoint={run}", setting])


def test_an_output_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for make in (
        lambda: encoded(run, tmp_path / "file"),
        lambda: reconstructed(run, tmp_path / "file" / "x.png", "limit=2"),
    ):
        with pytest.raises(UserError, match="cannot be written"):
            make()
    with pytest.raises(ConfigError, match="end it in .npz"):
        image_files.output_path("x.png", "npz", "codes")


@pytest.mark.parametrize(("command", "written"), [("reconstruct", "reconstructions.png"), ("encode", "codes.npz")])
def test_the_commands_write_where_they_are_and_answer_in_one_line(
    command, written, run, folder, tmp_path, monkeypatch, capsys
):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    for given, status in ((folder, 0), ("nowhere", 1)):
        with pytest.raises(SystemExit) as ended:
            getattr(cli, command)([f"checkpoint={run}", f"input={given}"])
        assert ended.value.code == status
    assert [path.name for path in (tmp_path / "here").iterdir()] == [written]
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"vae-{command}: error: input=nowhere")


def test_a_conditional_model_takes_labels_from_the_names_of_folders(tmp_path, digits):
    settings = [*WIDE, "conditional=true", "epochs=1"]
    assert train(compose.compose("train", settings), tmp_path / "run") == 0
    for name in ("1", "4", "7"):
        (tmp_path / "drawn" / name).mkdir(parents=True)
        Image.fromarray(digits[0][int(name)]).save(tmp_path / "drawn" / name / "a.png")
    assert encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'drawn'}")["label"].tolist() == [1, 4, 7]
    (tmp_path / "drawn" / "7").rename(tmp_path / "drawn" / "seven")
    with pytest.raises(DataError, match="has 3 subfolder.s. and the model 10 labels; name them by .* 0 to 9"):
        encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'drawn'}")


def test_what_one_command_writes_another_reads(run, tmp_path):
    sample.run(compose.compose("sample", [f"checkpoint={run}", "n=7", "format=npz", f"output={tmp_path / 'x.npz'}"]))
    assert len(encoded(run, tmp_path, f"input={tmp_path / 'x.npz'}")["mean"]) == 7
    some = [f"checkpoint={run}", "limit=5", "format=npz", f"output={tmp_path / 'y.npz'}"]
    reconstruct.run(compose.compose("reconstruct", some))
    assert len(encoded(run, tmp_path, f"input={tmp_path / 'y.npz'}")["label"]) == 5


def test_floats_are_rounded_for_a_model_of_bytes(run, digits, tmp_path):
    np.savez(tmp_path / "bytes.npz", digits[0][:9])
    np.savez(tmp_path / "floats.npz", digits[0][:9].astype(np.float32) / 255)
    codes = [encoded(run, tmp_path, f"input={tmp_path / name}")["mean"] for name in ("bytes.npz", "floats.npz")]
    np.testing.assert_array_equal(*codes)
