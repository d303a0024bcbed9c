"""A person's own images, prepared for a trained model as the training's were."""

import numpy as np
import pytest
from PIL import Image

from tests.support.image_commands import ORDER, WIDE, encoded, reconstructed
from tests.support.pictures import picture, put
from vae_cli.commands import reconstruct, sample
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError
from vae_cli.training.run import run as train


def test_a_folder_of_pngs_gives_the_codes_of_the_same_arrays_with_their_file_names(run, folder, digits, tmp_path):
    codes = encoded(run, tmp_path, f"input={folder}")
    assert codes["file"].tolist() == [f"{'ba'[n % 2]}/{n:02d}.png" for n in ORDER]
    assert codes["label"].tolist() == [0] * 6 + [1] * 6
    expected = encoded(run, tmp_path, "limit=12")
    np.testing.assert_allclose(codes["mean"], expected["mean"][ORDER], atol=1e-5)
    np.savez(tmp_path / "mine.npz", digits[0][:12])
    arrays = encoded(run, tmp_path, f"input={tmp_path / 'mine.npz'}")
    np.testing.assert_allclose(arrays["mean"], expected["mean"], atol=1e-5)
    assert "file" not in arrays and "label" not in arrays


def test_pixels_are_binarized_as_in_training(digits, tmp_path):
    settings = [*WIDE, "epochs=1", "dataset.binarize=threshold"]
    assert train(compose.compose("train", settings), tmp_path / "run") == 0
    np.savez(tmp_path / "mine.npz", digits[0][:9])
    grid = np.asarray(Image.open(reconstructed(tmp_path / "run", tmp_path / "x.png", f"input={tmp_path / 'mine.npz'}")))
    expected = ((digits[0][0] >= 128) * 255).astype(np.uint8).repeat(7, 0).repeat(7, 1)
    np.testing.assert_array_equal(grid[2:58, 2:58], expected)


def test_integers_of_0_and_1_are_refused_by_a_model_whose_gray_images_were_made_binary(digits, tmp_path):
    np.savez(tmp_path / "gray.npz", digits[0][:40])
    words = [*WIDE, "epochs=1", "batch_size=8", "dataset=arrays", "dataset.binarize=threshold"]
    run = tmp_path / "run"
    assert train(compose.compose("train", [*words, f"dataset.path={tmp_path / 'gray.npz'}"]), run) == 0
    bits = digits[0][:9] > 127
    for dtype in (np.uint8, np.int64):
        np.savez(tmp_path / "bits.npz", bits.astype(dtype))
        for key in ("input", "dataset.path"):
            with pytest.raises(
                DataError, match=r"bits.npz: the values are integers of 0 and 1, .* save x.astype\(bool"
            ):
                encoded(run, tmp_path, f"{key}={tmp_path / 'bits.npz'}")
    np.savez(tmp_path / "bits.npz", bits)
    np.savez(tmp_path / "levels.npz", bits * np.uint8(255))
    codes = [encoded(run, tmp_path, f"input={tmp_path / name}")["mean"] for name in ("bits.npz", "levels.npz")]
    np.testing.assert_array_equal(*codes)
    np.savez(tmp_path / "black.npz", np.zeros((3, 8, 8), np.uint8))
    np.savez(tmp_path / "dark.npz", bits.astype(np.float32) / 255)
    codes = [encoded(run, tmp_path, f"input={tmp_path / name}")["mean"][:3] for name in ("black.npz", "dark.npz")]
    np.testing.assert_allclose(*codes, atol=1e-6)


def test_data_of_a_training_that_were_binary_already_stay_so_where_they_were_moved(digits, tmp_path):
    np.savez(tmp_path / "bits.npz", (digits[0][:40] > 127).astype(np.uint8))
    words = [*WIDE, "epochs=1", "batch_size=8", "dataset=arrays", "dataset.binarize=threshold"]
    run = tmp_path / "run"
    assert train(compose.compose("train", [*words, f"dataset.path={tmp_path / 'bits.npz'}"]), run) == 0
    expected = encoded(run, tmp_path)["mean"]
    moved = (tmp_path / "bits.npz").rename(tmp_path / "moved.npz")
    np.testing.assert_array_equal(encoded(run, tmp_path, f"dataset.path={moved}")["mean"], expected)


def test_a_model_of_binary_data_sees_pictures_in_black_and_white(digits, tmp_path, capsys):
    binary = (digits[0] > 127).astype(np.uint8)
    np.savez(tmp_path / "train.npz", train=binary, test=binary[:10])
    data = ["dataset=arrays", f"dataset.path={tmp_path / 'train.npz'}"]
    assert train(compose.compose("train", [*WIDE, *data, "epochs=1"]), tmp_path / "run") == 0
    np.savez(tmp_path / "gray.npz", digits[0][:9])
    gray = encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'gray.npz'}")
    assert "note: the images were made black and white" in capsys.readouterr().err
    black = encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'train.npz'}")
    assert "note" not in capsys.readouterr().err
    np.testing.assert_allclose(gray["mean"], black["mean"][:9], atol=1e-5)


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
    for name in ("nowhere", "empty"):
        with pytest.raises(DataError, match=name):
            encoded(run, tmp_path, f"input={tmp_path / name}")


def test_a_conditional_model_takes_labels_from_the_names_of_folders(tmp_path, digits):
    settings = [*WIDE, "conditional=true", "epochs=1"]
    assert train(compose.compose("train", settings), tmp_path / "run") == 0
    for name in ("1", "4", "7"):
        (tmp_path / "drawn" / name).mkdir(parents=True)
        Image.fromarray(digits[0][int(name)]).save(tmp_path / "drawn" / name / "a.png")
    assert encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'drawn'}")["label"].tolist() == [1, 4, 7]
    (tmp_path / "drawn" / "7").rename(tmp_path / "drawn" / "seven")
    with pytest.raises(DataError, match="has 3 subfolders and the model 10 labels; name them by .* 0 to 9"):
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


@pytest.mark.parametrize("dtype", [np.uint8, np.float32, bool])
def test_black_images_and_zeros_and_ones_are_what_a_model_of_bytes_takes(run, digits, tmp_path, capsys, dtype):
    black, bits = np.zeros((3, 8, 8), dtype), (digits[0][:9] > 127).astype(dtype)
    np.savez(tmp_path / "black.npz", black)
    np.savez(tmp_path / "bits.npz", bits)
    white = 1 if dtype == np.uint8 else 255
    assert encoded(run, tmp_path, f"input={tmp_path / 'black.npz'}")["mean"].std(0).max() < 1e-6
    assert capsys.readouterr().err == ""
    reconstructed(run, tmp_path / "y.png", f"input={tmp_path / 'bits.npz'}")
    assert ("values are 0 and 1 and were taken as levels" in capsys.readouterr().err) == (dtype == np.uint8)
    np.savez(tmp_path / "more.npz", np.concatenate([bits.astype(np.uint8) * white, digits[0][:1]]))
    expected = encoded(run, tmp_path, f"input={tmp_path / 'more.npz'}")["mean"][:9]
    np.testing.assert_allclose(encoded(run, tmp_path, f"input={tmp_path / 'bits.npz'}")["mean"], expected, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        (np.full((3, 8, 8), 2.5, np.float32), "floats from 2.5 to 2.5, not in [0, 1]; they look like bytes: divide by"),
        (np.full((3, 8, 8), 4095, np.uint16), "uint16 with values from 4095 to 4095; rescale it to 0 … 255"),
        ("folder", "its values are from 2.5 to 2.5, not from 0 to 1: rescale them); repair"),
    ],
)
def test_values_outside_of_the_range_are_refused_with_a_fix_that_is_there(values, fix, run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if isinstance(values, str):
        put(tmp_path / "x", "a.tif", image=Image.fromarray(np.full((9, 9), 2.5, np.float32)))
    else:
        np.savez(tmp_path / "x", values)
    with pytest.raises(DataError) as caught:
        encoded(run, tmp_path, f"input={next(tmp_path.glob('x*'))}")
    assert fix in str(caught.value) and "dataset.range" not in str(caught.value)


def test_what_was_made_of_a_folders_images_is_said(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    put(tmp_path / "mine", "a.png", "b.png", image=picture(48, 48))
    for _ in range(2):
        encoded(run, tmp_path, f"input={tmp_path / 'mine'}")
        assert "note: images resized from 48x48 to 8x8 and 2 made gray from color\n" in capsys.readouterr().err


def test_advice_about_a_folder_names_no_key_that_the_command_does_not_take(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "mine").mkdir()
    Image.fromarray((np.arange(64, dtype=np.uint16) * 64).reshape(8, 8)).save(tmp_path / "mine" / "a.png")
    encoded(run, tmp_path, f"input={tmp_path / 'mine'}")
    said = capsys.readouterr().err
    assert "the largest value is 4,032 of 65535: they come out dark; rescale them\n" in said
    (tmp_path / "mine" / "b.png").write_text("no image")
    with pytest.raises(DataError, match=r"b\.png cannot be read .*; repair or remove it$"):
        encoded(run, tmp_path, f"input={tmp_path / 'mine'}")


def test_folders_of_a_conditional_model_have_its_classes_names(tmp_path, digits, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for number in range(30):
        name = ("circle", "square", "star")[number % 3]
        put(tmp_path / "data", f"{name}/{number}.png", image=Image.fromarray(digits[0][number]))
    data = ["dataset=folder", f"dataset.path={tmp_path / 'data'}", "dataset.image_size=8", "dataset.channels=1"]
    assert train(compose.compose("train", [*WIDE, *data, "conditional=true", "epochs=1"]), tmp_path / "run") == 0
    (tmp_path / "data" / "circle").rename(tmp_path / "data" / "zebra")
    with pytest.raises(DataError, match="0 to 2, or circle, square, star: zebra is none"):
        encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'data'}")
    (tmp_path / "data" / "square").rename(tmp_path / "gone")
    (tmp_path / "data" / "zebra").rename(tmp_path / "data" / "0")
    labels = encoded(tmp_path / "run", tmp_path, f"input={tmp_path / 'data'}")["label"]
    assert labels.tolist() == [0] * 10 + [2] * 10
    output = f"output={tmp_path / 'x.npz'}"
    for label, number in (("star", 2), ("STAR", 2), ("1", 1)):
        sample.run(
            compose.compose("sample", [f"checkpoint={tmp_path / 'run'}", f"label={label}", "format=npz", output])
        )
        with np.load(tmp_path / "x.npz") as archive:
            assert set(archive["labels"].tolist()) == {number}
    with pytest.raises(ConfigError, match="label=cirle: .* are circle, square, star, or all; did you mean circle?"):
        sample.run(compose.compose("sample", [f"checkpoint={tmp_path / 'run'}", "label=cirle"]))
    with pytest.raises(ConfigError, match="label=3: this model's labels are circle"):
        sample.run(compose.compose("sample", [f"checkpoint={tmp_path / 'run'}", "label=3"]))
