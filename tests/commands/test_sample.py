"""vae-sample: the same images for the same seed, in every format, from any directory, without the data."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from vae_cli import cli, noise
from vae_cli.build import trained
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.errors import ConfigError, UserError
from vae_cli.generation.samplers import Sampler, generate_images
from vae_cli.training.run import run as train


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("a run, with = signs") / "x=1"
    narrow = ["encoder.hidden=[16]", "decoder.hidden=[16]"]
    train(compose.compose("train", ["epochs=1", "latent_dim=2", "device=cpu", "report=false", *narrow]), directory)
    return directory


def drawn(run, tmp_path, *overrides, name="out.npz"):
    output = tmp_path / name
    sample.run(compose.compose("sample", [f"checkpoint={run}", f"output={output}", *overrides]))
    return output


def images(run, tmp_path, *overrides, name="out.npz"):
    with np.load(drawn(run, tmp_path, "format=npz", *overrides, name=name)) as archive:
        return archive["images"]


def test_npz_holds_the_mean_of_p_x_given_z_as_float32_in_data_units(run, tmp_path):
    x = images(run, tmp_path, "n=5")
    assert x.shape == (5, 1, 8, 8) and x.dtype == np.float32
    assert x.min() >= 0 and x.max() <= 1 and len(np.unique(x)) > 100


def test_the_same_seed_gives_the_same_images_whatever_their_number(run, tmp_path):
    many = images(run, tmp_path, f"n={2 * sample.CHUNK + 7}", "seed=3")
    np.testing.assert_array_equal(images(run, tmp_path, "n=9", "seed=3"), many[:9])
    np.testing.assert_array_equal(images(run, tmp_path, f"n={sample.CHUNK + 1}", "seed=3"), many[: sample.CHUNK + 1])
    assert not np.array_equal(images(run, tmp_path, "n=9", "seed=4"), many[:9])
    assert len({x.tobytes() for x in many}) == len(many)


def test_draws_of_x_are_levels_and_depend_on_the_seed_alone(run, tmp_path):
    first = images(run, tmp_path, "n=9", "draw=true")
    np.testing.assert_allclose(first * 255, np.round(first * 255), atol=1e-4)
    np.testing.assert_array_equal(first, images(run, tmp_path, "n=300", "draw=true")[:9])


def test_temperature_zero_gives_the_image_of_the_priors_mean(run, tmp_path):
    cold = images(run, tmp_path, "n=3", "temperature=0")
    np.testing.assert_array_equal(cold[0], cold[1])
    assert not np.array_equal(cold[0], images(run, tmp_path, "n=3")[0])


def test_a_grid_is_one_png_of_all_images(run, tmp_path):
    assert Image.open(drawn(run, tmp_path, "n=10", name="grid.png")).size == (4 * 58 + 2, 3 * 58 + 2)


def test_png_fills_a_folder_with_images_of_their_own_size(run, tmp_path):
    folder = drawn(run, tmp_path, "n=11", "format=png", name="new/pictures")
    assert sorted(p.name for p in folder.iterdir()) == [f"{i:06d}.png" for i in range(11)]
    drawn(run, tmp_path, "n=11", "format=png", name="new/pictures")
    with pytest.raises(ConfigError, match="holds other images"):
        drawn(run, tmp_path, "n=10", "format=png", name="new/pictures")
    expected = np.round(images(run, tmp_path, "n=11")[10, 0] * 255)
    np.testing.assert_array_equal(np.asarray(Image.open(folder / "000010.png")), expected)


def test_a_sample_is_the_decoder_at_the_priors_draw(run):
    model, facts, _, _ = trained.load(sample.checkpoint.find(run), "cpu")
    assert facts.shape == (1, 8, 8) and not model.training
    (chunk,) = generate_images(Sampler(model, seed=7), 4)
    z = noise.by_image(4, 1, 2, 7, "samples")[0]
    torch.testing.assert_close(chunk, model.image(z).detach())


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["n=10001"], "a grid holds at most 10,000"),
        (["format=npz", "output=x.png"], "format=npz"),
        (["format=grid", "output=x.npz"], "format=npz"),
        (["format=csv"], "format=csv is of rows, and these are images; use format=grid, png or npz"),
        (["output=x.parquet"], "format=parquet is of rows"),
        (["output=x"], "end it in .png"),
        (["format=png", "output=x.png"], "fills a folder"),
        (["device=cuda:7"], "cuda"),
    ],
)
def test_settings_that_do_not_fit_are_refused(overrides, message, run):
    with pytest.raises(ConfigError, match=message):
        sample.run(compose.compose("sample", [f"checkpoint={run}", *overrides]))


def test_an_output_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match=r"file/out.npz cannot be written"):
        drawn(run, tmp_path, "format=npz", name="file/out.npz")


ENCODER = """
from torch import nn

class MyEncoder(nn.Module):
    def __init__(self, shape, out_features, width=3, slope=0.1):
        super().__init__()
        inputs = shape[0] * shape[1] * shape[2]
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(inputs, width), nn.Tanh(), nn.Linear(width, out_features))

    def forward(self, x):
        return self.layers(x)
"""


def test_a_users_own_encoder_trains_and_samples_only_where_it_is_allowed(tmp_path, monkeypatch, capsys):
    (tmp_path / "own_encoder.py").write_text(ENCODER)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def status(command, *words):
        with pytest.raises(SystemExit) as ended:
            command(list(words))
        return ended.value.code

    own = ["encoder._target_=own_encoder.MyEncoder", "+encoder.width=5"]
    assert status(cli.train, "epochs=1", "report=false", *own, "hydra.run.dir=run") == 0
    assert "dropped     encoder.hidden, encoder.activation" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"
    assert status(cli.sample, "checkpoint=run") == 1
    refused = capsys.readouterr().err
    assert "allow=own_encoder" in refused and refused.count("\n") == 1
    assert status(cli.sample, "checkpoint=run", "allow=own_encoder", "n=4") == 0
    assert (tmp_path / "samples.png").exists()


def test_z_names_the_one_vector_to_decode(run, tmp_path):
    model = trained.load(sample.checkpoint.find(run), "cpu").model
    with torch.no_grad():
        expected = model.image(torch.tensor([[0.5, -1.25]]))
    np.testing.assert_allclose(images(run, tmp_path, "z=[0.5,-1.25]"), expected.numpy(), atol=1e-6)
    np.testing.assert_allclose(images(run, tmp_path, "z=[1,-2]")[0], images(run, tmp_path, "z=[1.0,-2.0]")[0])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["z=[1]"], "z has 1 number(s), and the model's latent space 2 dimension(s)"),
        (["z=[1,2]", "n=4"], "n=4: z= names the one vector"),
        (["z=[1,2]", "temperature=0.5"], "temperature=0.5: z= names"),
        (["z=[1,2]", "label=all"], "label=all: z= names"),
        (["z=[1,2]", "mode=traverse"], "mode=traverse takes no z"),
    ],
)
def test_z_goes_with_no_other_way_to_choose_vectors(run, tmp_path, settings, words):
    with pytest.raises(ConfigError) as caught:
        images(run, tmp_path, *settings)
    assert words in str(caught.value)


@pytest.mark.parametrize("value", ["[]", "1", "[a]", "[nan,1]", "[[1,2]]", "null2"])
def test_z_is_a_list_of_numbers(run, tmp_path, value):
    with pytest.raises(ConfigError, match="z accepts null or a list of numbers, one for each latent dimension"):
        images(run, tmp_path, f"z={value}")
