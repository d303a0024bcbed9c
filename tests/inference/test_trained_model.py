"""A trained model in Python: the numbers of the commands bit for bit, gradients on request, and what is refused."""

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import vae_cli
from tests.support.image_commands import encoded, reconstructed
from vae_cli.commands import evaluate, sample
from vae_cli.config import compose
from vae_cli.errors import CheckpointError, ConfigError, DataError, OutputError
from vae_cli.inference.codes import reconstructions
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

ODD = ["latent_dim=3", "epochs=2", "report=false", "device=cpu", "encoder.hidden=[16]", "decoder.hidden=[16]"]


def arrays(command, module, run, tmp_path, *settings):
    output = tmp_path / "out.npz"
    module.run(compose.compose(command, [f"checkpoint={run}", f"output={output}", *settings]))
    with np.load(output) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def conditional(tmp_path_factory):
    """A conditional model with an odd number of latent dimensions and labels with names."""
    directory = tmp_path_factory.mktemp("conditional")
    assert train(compose.compose("train", [*ODD, "conditional=true"]), directory) == 0
    return directory


def test_samples_are_those_of_the_command(run, conditional, tmp_path):
    expected = arrays("sample", sample, run, tmp_path, "n=70", "seed=5", "temperature=0.7", "format=npz")
    drawn = vae_cli.load(run).sample(70, seed=5, temperature=0.7)
    assert drawn.dtype == torch.float32
    np.testing.assert_array_equal(drawn.numpy(), expected["images"])
    model = vae_cli.load(conditional)
    for label, setting in ((3, ["label=3"]), (None, []), ("all", [])):
        expected = arrays("sample", sample, conditional, tmp_path, "n=12", "format=npz", *setting)
        np.testing.assert_array_equal(model.sample(12, label=label).numpy(), expected["images"])
    in_turn = model.sample(12, label=np.arange(12) % 10)
    np.testing.assert_array_equal(in_turn.numpy(), expected["images"])


def test_draws_of_x_are_those_of_the_command(run, tmp_path):
    expected = arrays("sample", sample, run, tmp_path, "n=3", "draw=true", "format=npz")["images"]
    np.testing.assert_array_equal(vae_cli.load(run).sample(3, draw=True).numpy(), expected)


@pytest.mark.parametrize("posterior", ["diagonal_normal", "full_normal", "flow"])
def test_codes_are_those_of_the_command_for_more_examples_than_go_through_together(posterior, tmp_path):
    settings = [*ODD, f"posterior={posterior}", "dataset.validation=0"]
    assert train(compose.compose("train", settings), tmp_path / "run") == 0
    expected = encoded(tmp_path / "run", tmp_path, "input=train", "limit=607")
    model = vae_cli.load(tmp_path / "run")
    split = evaluate.load_data(model._loaded, compose.compose("encode", [])).train
    q = model.encode(split.images[:607])
    if posterior != "flow":
        mean, std = q.moments()
        np.testing.assert_array_equal(mean.numpy(), expected["mean"])
        np.testing.assert_array_equal(std.numpy(), expected["std"])
    else:  # whose codes are means of draws
        (_, below), *_ = reconstructions(model.model, model._chunks(model._split(split.images[:9], None)))
        assert torch.equal(model.image(q.mean[:9]), below) and not q.mean.requires_grad
    assert not q.log_prob(q.mean).requires_grad and model.encode(split.images[:9], grad=True).mean.requires_grad


def test_convolutions_of_equal_images_are_equal_whatever_the_strides_of_their_arrays(tmp_path, digits):
    run = tmp_path / "run"
    assert train(compose.compose("train", [*ODD[:-2], "epochs=1", "encoder=conv", "encoder.channels=[8]"]), run) == 0
    expected, model = encoded(run, tmp_path)["mean"], vae_cli.load(run)
    for x in (digits[0], digits[0][:, None], digits[0][..., None], torch.from_numpy(digits[0])[:, None]):
        np.testing.assert_array_equal(model.encode(x).mean.numpy(), expected)


@pytest.mark.parametrize("likelihood", ["auto", "normal", "categorical", "discretized_logistic_mixture"])
def test_no_likelihood_has_gradients_unless_they_are_asked_for(likelihood, tmp_path, digits):
    run = tmp_path / "run"
    assert train(compose.compose("train", [*ODD, "epochs=1", f"likelihood={likelihood}"]), run) == 0
    model = vae_cli.load(run)
    x, z = model.preprocess(digits[0][:2]), np.zeros((2, 3))
    assert not model.decode(z).log_prob(x).requires_grad and model.decode(z, grad=True).log_prob(x).requires_grad


def test_codes_of_a_conditional_model_are_those_of_the_command(conditional, digits, tmp_path):
    expected = encoded(conditional, tmp_path, "limit=20")
    images, labels = digits
    model = vae_cli.load(conditional)
    for given in (labels[:20], labels[:20].tolist(), torch.from_numpy(labels[:20])):
        np.testing.assert_array_equal(model.encode(images[:20], label=given).mean.numpy(), expected["mean"])


def test_reconstructions_are_those_of_the_command(run, digits, tmp_path):
    reconstructed(run, tmp_path / "out.npz", "format=npz")
    with np.load(tmp_path / "out.npz") as archive:
        expected = archive["images"]
    np.testing.assert_array_equal(vae_cli.load(run).reconstruct(digits[0]).numpy(), expected)


def test_bounds_are_those_of_the_command(run, digits, tmp_path):
    config = compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=60", "seed=2", "limit=50"])
    evaluate.run(config | {"output": str(tmp_path / "evaluation.json")})
    numbers = json.loads((tmp_path / "evaluation.json").read_text())
    model, x = vae_cli.load(str(run)), digits[0][:50]
    log_likelihood = model.log_likelihood(x, num_importance_samples=60, seed=2)
    elbo = model.elbo(x, mc_samples=60, seed=2)
    assert log_likelihood.dtype == torch.float64 and log_likelihood.shape == (50,)
    assert float(log_likelihood.mean()) == numbers["log_likelihood"]["value"]
    assert float(elbo.mean()) == numbers["elbo"]["value"]
    assert not torch.equal(elbo, model.elbo(x, mc_samples=60, seed=3))


@pytest.mark.parametrize("binarize", ["threshold", "static", "dynamic"])
def test_gray_images_are_binarized_as_in_training(binarize, digits, tmp_path):
    run = tmp_path / "run"
    assert train(compose.compose("train", [*ODD, "epochs=1", f"dataset.binarize={binarize}"]), run) == 0
    np.savez(tmp_path / "gray.npz", digits[0])
    expected = encoded(run, tmp_path, f"input={tmp_path / 'gray.npz'}")["mean"]
    model = vae_cli.load(run)
    for x in (digits[0], digits[0] / 255, torch.from_numpy(digits[0])[:, None] / 255):
        np.testing.assert_array_equal(model.encode(x).mean.numpy(), expected)
    binary = model.preprocess(digits[0])
    assert binary.unique().tolist() == [0, 1]
    for x in (binary, binary.bool(), binary.double()):
        assert torch.equal(model.preprocess(x), binary)
    with pytest.raises(DataError, match="x is uint8 of 0 and 1, and the model's data were gray.* make it bool"):
        model.preprocess(binary.byte())
    dark = Image.fromarray(binary[0, 0].byte().numpy())
    assert model.preprocess(dark).max() == model.preprocess(0 * binary.byte()).max() == 0


def test_bytes_for_a_model_of_zeros_and_ones_are_zeros_and_ones_and_gray_images_are_noted(digits, tmp_path):
    binary = digits[0] > 127
    np.savez(tmp_path / "binary.npz", binary.astype(np.uint8))
    data = ["dataset=arrays", f"dataset.path={tmp_path / 'binary.npz'}"]
    assert train(compose.compose("train", [*ODD, *data, "epochs=1"]), tmp_path / "run") == 0
    model = vae_cli.load(tmp_path / "run")
    expected = torch.from_numpy(binary)[:, None].float()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for x in (binary, binary.astype(np.uint8), binary.astype(float), 255 * binary.astype(np.uint8)):
            assert torch.equal(model.preprocess(x), expected)
    for gray in (digits[0], digits[0] / 255, [Image.fromarray(image) for image in digits[0]]):
        with pytest.warns(UserWarning, match="x is gray and was made black and white") as noted:
            assert torch.equal(model.preprocess(gray), expected)
        assert noted[0].filename == __file__
    with pytest.warns(UserWarning, match="x is gray"):
        assert model.preprocess(Image.fromarray(binary[0].astype(np.uint8))).max() == 0


def test_pil_images_are_prepared_as_files_of_a_folder(run, tmp_path):
    paths, generator = [], np.random.default_rng(0)
    for number, (mode, size) in enumerate([("RGB", (30, 20)), ("L", (8, 8)), ("RGBA", (9, 17)), ("P", (16, 16))]):
        noise = Image.fromarray(generator.integers(0, 255, (size[1], size[0], 3), np.uint8)).convert(mode)
        paths.append(tmp_path / "mine" / f"{number}.png")
        paths[-1].parent.mkdir(exist_ok=True)
        noise.save(paths[-1])
    expected = encoded(run, tmp_path, f"input={tmp_path / 'mine'}")["mean"]
    model = vae_cli.load(run)
    with pytest.warns(UserWarning, match="in colour was made gray"):
        q = model.encode([Image.open(path) for path in paths])
    np.testing.assert_array_equal(q.mean.numpy(), expected)
    assert torch.equal(model.encode(Image.open(paths[1])).mean, model.encode([Image.open(paths[1])]).mean)


def test_every_form_of_the_same_examples_gives_the_same(run, digits):
    model, x = vae_cli.load(run), digits[0][:4]
    expected = model.preprocess(x)
    assert expected.shape == (4, 1, 8, 8) and torch.equal(expected, torch.from_numpy(x)[:, None].float() / 255)
    forms = [
        *(x[:, None], x[..., None], torch.from_numpy(x), x[:, ::-1][:, ::-1], list(x), tuple(torch.from_numpy(x))),
        *(x.tolist(), (x / 255).tolist(), x / 255, (x / 255).astype(np.float16), torch.from_numpy(x) / 255),
        [Image.fromarray(image) for image in x],
    ]
    for form in forms:
        assert torch.equal(model.preprocess(form), expected)
    for one in (x[0], x[0][None], x[0][..., None], torch.from_numpy(x[0]), Image.fromarray(x[0])):
        assert torch.equal(model.preprocess(one), expected[:1])


def test_there_are_no_gradients_unless_they_are_asked_for(run, digits):
    model = vae_cli.load(run)
    x = torch.from_numpy(digits[0][:5]) / 255
    assert not model.model.training
    z = model.encode(x).mean
    assert not z.requires_grad and not model.decode(z).mean.requires_grad
    for value in (model.image(z), model.reconstruct(x), model.elbo(x, mc_samples=2), model.sample(2)):
        assert not value.requires_grad

    weight = next(model.model.decoder.parameters())
    for loss in (
        model.decode(z, grad=True).log_prob(model.preprocess(x)).mean(),
        model.image(z, grad=True).mean(),
        model.reconstruct(x, grad=True).mean(),
        model.elbo(x, mc_samples=2, grad=True).mean(),
        model.log_likelihood(x, num_importance_samples=2, grad=True).mean(),
    ):
        weight.grad = None
        loss.backward()
        assert weight.grad.abs().sum() > 0
    pixel = (x + 0.001).clamp(0, 1)[:, None].requires_grad_()
    model.encode(pixel, grad=True).mean.sum().backward()
    assert pixel.grad.shape == (5, 1, 8, 8) and pixel.grad.abs().sum() > 0
    assert torch.equal(model.elbo(x, mc_samples=3, grad=True).detach(), model.elbo(x, mc_samples=3))


def test_latent_vectors_of_any_batch_shape_are_decoded(run):
    model = vae_cli.load(run)
    z = torch.randn(3, 100, model.latent_dim)
    images = model.image(z)
    assert images.shape == (3, 100, 1, 8, 8) and images.min() >= 0 and images.max() <= 1
    assert model.decode(z.numpy()).mean.shape == (3, 100, 1, 8, 8)
    assert model.image(z[0, 0]).shape == (1, 1, 8, 8) and model.image(z[0, 0].tolist()).shape == (1, 1, 8, 8)
    torch.testing.assert_close(images[2, 99], model.image(z[2, 99])[0])
    with pytest.raises(DataError, match="z is a distribution; give latent vectors"):
        model.image(model.encode(np.zeros((1, 8, 8), np.uint8)))
    for wrong in (torch.zeros(2, 5), torch.zeros(0, model.latent_dim), 3, "z"):
        with pytest.raises(DataError, match=f"z is .*{model.latent_dim}"):
            model.image(wrong)


def test_the_model_its_config_and_its_data_are_there(run):
    model = vae_cli.load(run, device="cpu")
    assert isinstance(model.model, torch.nn.Module) and model.config["latent_dim"] == 8
    assert (model.data.name, model.data.shape, model.data.support) == ("digits", (1, 8, 8), "levels256")
    assert model.path.is_file() and str(model.path) in repr(model)


def test_a_file_that_is_overwritten_or_cut_does_not_touch_a_model_that_is_loaded(run, conditional, tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes((run / "checkpoints" / "best.safetensors").read_bytes())
    model = vae_cli.load(path, device="cpu")
    samples = model.sample(4)
    with path.open("r+b") as file:  # the very file, not another of its name
        file.write(bytes(path.stat().st_size))
        assert torch.equal(model.sample(4), samples)
        file.truncate(100)
    assert torch.equal(model.sample(4), samples)


def test_a_model_is_saved_as_it_is_without_the_numbers_of_other_weights(run, tmp_path):
    model = vae_cli.load(run, device="cpu")
    for parameter in model.model.parameters():
        parameter.data += 0.01
    model.save(tmp_path / "x.safetensors")
    again = vae_cli.load(tmp_path / "x.safetensors", device="cpu")
    assert torch.equal(again.sample(3), model.sample(3)) and again.step == model.step
    assert checkpoint.load(tmp_path / "x.safetensors")["best"] is None
    next(model.model.parameters()).data.fill_(float("nan"))
    with pytest.raises(DataError, match="a weight of the model is not finite"):
        model.save(tmp_path / "x.safetensors")
    with pytest.raises(OutputError, match="cannot be written"):
        again.save(tmp_path / "no\0name")
    with pytest.raises(DataError, match="z has numbers that are not finite"):
        again.image(torch.full((8,), float("nan")))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x.astype(np.float32), "from 0 to 255, and floats belong in .0, 1.; divide it by 255"),
        (lambda x: x / 127.5 - 1, r"from -1 to 1, .* perhaps \(x \+ 1\) / 2"),
        (lambda x: x / 255 + np.nan, "holds NaN"),
        (lambda x: x / 255 * 1.5, "rescale or clip it"),
        (lambda x: x.astype(np.int64), r'int64 with values from 0 to 255; make it bytes: x.astype\("uint8"\)'),
        (lambda x: (x > 99).astype(np.int64), "int64 .* from 0 to 1; if 1 is white, make it bool"),
        (lambda x: x.astype(np.int64) * 9, "scale it to 0 … 255"),
        (lambda x: x.astype(complex), "complex"),
        (lambda x: x.astype(str), "make it uint8"),
        (lambda x: x.astype(object), "make it uint8"),
        (lambda x: x[:, :7], r"x is 4x7x8: this model takes \(N, 1, 8, 8\), or .*resize\(\(8, 8\)\)"),
        (lambda x: np.stack([x] * 3, 1), r"x is 4x3x8x8: .* gray first"),
        (lambda x: np.stack([x[0]] * 3, -1), r"x is 8x8x3: .* gray first"),
        (lambda x: x[:0], "at least one example"),
        (lambda x: x.reshape(4, 64), r"x is 4x64: .* x.reshape\(-1, 1, 8, 8\)"),
        (lambda x: x.flatten()[:9], "x is 9: this model takes"),
        (lambda x: (torch.from_numpy(x) / 255, torch.zeros(4)), "a pair of examples and labels"),
        (lambda x: x // 16 * 1.0, "from 0 to 15, .* divide it by the value of white"),
        (lambda x: [["a"]], "x is a list of str"),
        (lambda x: Image.fromarray(x[0] * np.float32(1)), "a PIL image cannot be used: .*rescale them$"),
        (lambda x: [], "an empty list"),
        (lambda x: [x[0], x[1][:5]], r"x\[1\] is 5x8: this model takes"),
        (lambda x: [x[0], x[1] / 255], "float64 and uint8; make them all"),
        (lambda x: [[1.0, 2.0], [3.0]], "several lengths"),
        (lambda x: "digits.png", "x is of type str; give a tensor"),
        (lambda x: None, "x is of type NoneType"),
    ],
)
def test_examples_of_another_shape_range_or_type_are_refused_with_the_fix(make, message, run, digits):
    model = vae_cli.load(run)
    for method in (model.encode, model.log_likelihood):
        with pytest.raises(DataError, match=message) as refused:
            method(make(digits[0][:4]))
        assert "\n" not in str(refused.value)


def test_bytes_of_zero_and_one_for_a_model_of_levels_are_noted(run, digits):
    with pytest.warns(UserWarning, match="give it as bool"):
        vae_cli.load(run).encode((digits[0][:2] > 99).astype(np.uint8))
    white = vae_cli.load(run).preprocess(digits[0][:2] > 99)
    assert white.unique().tolist() == [0, 1]


def test_labels_that_a_model_does_not_have_are_refused(run, conditional, digits):
    x, model = digits[0][:3], vae_cli.load(conditional)
    with pytest.raises(DataError, match="conditional: give label=, one for all or one for each: 0 to 9"):
        model.encode(x)
    with pytest.raises(DataError, match=r"2 entries for 3 example"):
        model.encode(x, label=[1, 2])
    for label in (10, -1, "ten", [1, 2, 11], 1.5):
        with pytest.raises(ConfigError, match="label=.* 0 to 9"):
            model.reconstruct(x, label=label)
    with pytest.raises(ConfigError, match="label=all"):
        model.encode(x, label="all")
    for call in (
        lambda m: m.encode(x, label=1),
        lambda m: m.sample(3, label=1),
        lambda m: m.image(np.zeros(8), label=0),
    ):
        with pytest.raises(ConfigError, match="this model knows no labels"):
            call(vae_cli.load(run))


def test_settings_are_checked_as_on_a_command_line(run, digits, tmp_path):
    model = vae_cli.load(run)
    calls = {
        "n=0": lambda: model.sample(0),
        "n=2.5": lambda: model.sample(2.5),
        "seed=-1": lambda: model.sample(1, seed=-1),
        "temperature=-1": lambda: model.sample(1, temperature=-1),
        "num_importance_samples=0": lambda: model.log_likelihood(digits[0], num_importance_samples=0),
        "mc_samples=0": lambda: model.elbo(digits[0], mc_samples=0),
        "device=gpu": lambda: vae_cli.load(run, device="gpu"),
    }
    for start, call in calls.items():
        with pytest.raises(ConfigError, match=start):
            call()
    with pytest.raises(CheckpointError, match="no such file or directory"):
        vae_cli.load(tmp_path / "nowhere")
    assert model.sample(np.int64(2), seed=np.int64(1)).shape[0] == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_named(run):
    with pytest.raises(ConfigError, match="device=cuda: torch finds no CUDA GPU here; use device=auto"):
        vae_cli.load(run, device="cuda")
