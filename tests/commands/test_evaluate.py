"""vae-evaluate: its numbers against plain NumPy, its file, its table and its refusals."""

import json
import math
import shutil

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from sklearn.datasets import load_digits

from tests.support.commands import vae
from vae_cli import cli, noise
from vae_cli.build import parts, trained
from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError, UserError
from vae_cli.training.run import run as train

KEYS = {
    *("elbo", "reconstruction", "kl", "log_likelihood", "log_likelihood_by_samples", "bits_per_dim", "mse", "psnr"),
    *("active_units", "kl_per_dim", "mmd", "index_code_mi", "knn_accuracy", "linear_probe_accuracy"),
}


def trained_run(directory, *settings):
    narrow = ["encoder.hidden=[32]", "decoder.hidden=[32]", "latent_dim=3", "epochs=12", "device=cpu"]
    assert (
        train(
            compose.compose(
                "train",
                [*narrow, "report=false", "encoder.activation=tanh", "optimizer.lr=5e-3", "batch_size=32", *settings],
            ),
            directory,
        )
        == 0
    )
    return directory


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return trained_run(tmp_path_factory.mktemp("runs") / "run", "decoder.activation=tanh")


def evaluated(run, tmp_path, *settings):
    output = tmp_path / "found.json"
    few = [] if any("samples=" in s for s in settings) else ["num_importance_samples=20"]
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", f"output={output}", *few, *settings]))
    return json.loads(output.read_text())


def test_the_file_has_the_documented_keys_in_the_run_directory(run, capsys):
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=30"]))
    numbers = json.loads((run / "evaluation.json").read_text())
    assert numbers.keys() >= KEYS
    for key in KEYS - {"kl_per_dim", "log_likelihood_by_samples"}:
        assert {"value", "stderr", "n"} <= numbers[key].keys(), key
    assert list(numbers["log_likelihood_by_samples"]) == ["1", "10", "30"]
    assert numbers["log_likelihood_by_samples"]["30"] == numbers["log_likelihood"]
    assert len(numbers["kl_per_dim"]) == 3 and numbers["split"] == "test" and numbers["elbo"]["n"] == 180
    table = capsys.readouterr().out
    assert all(key in table for key in KEYS - {"log_likelihood_by_samples"})
    assert f"{numbers['log_likelihood']['value']:.4f}" in table


def network(parameters, value):
    w1, b1, w2, b2 = (p.detach().double().numpy() for p in parameters)
    return np.tanh(value @ w1.T + b1) @ w2.T + b2


def by_hand(run, draws, images):
    """log densities of every draw in float64 by NumPy and SciPy, from the weights alone."""
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.safetensors", "cpu")
    split = parts.dataset(settings).splits().test
    x = split.images[:images].flatten(1).double().numpy() / 255
    loc, log_scale = np.split(network(model.encoder.parameters(), x), 2, axis=1)
    chunks = [noise.by_image(images, 50, 3, 0, "log_likelihood", seen) for seen in range(0, draws, 50)]
    z = loc + np.exp(log_scale) * torch.cat(chunks)[:draws].double().numpy()
    mean = network(model.decoder.parameters(), z).reshape(draws, images, 64)
    scale = math.exp(float(model.likelihood.raw_scale))  # within the bounds of a scale
    logistic = scipy.stats.logistic(mean, scale)
    low = np.where(x == 0, 0, logistic.cdf(x - 0.5 / 255))
    high = np.where(x == 1, 1, logistic.cdf(x + 0.5 / 255))
    log_p_x = np.log(high - low).sum(-1)
    log_p_z = scipy.stats.norm.logpdf(z).sum(-1)
    log_q = scipy.stats.norm(loc, np.exp(log_scale)).logpdf(z).sum(-1)
    return log_p_x, log_p_z, log_q, loc, log_scale


def test_the_numbers_of_a_trained_model_are_those_of_plain_numpy(run, tmp_path):
    numbers = evaluated(run, tmp_path, "num_importance_samples=120", "limit=60")
    log_p_x, log_p_z, log_q, loc, log_scale = by_hand(run, 120, 60)
    for draws in (1, 10, 100, 120):
        log_w = (log_p_x + log_p_z - log_q)[:draws]
        expected = scipy.special.logsumexp(log_w, axis=0) - math.log(draws)
        entry = numbers["log_likelihood_by_samples"][str(draws)]
        assert entry["value"] == pytest.approx(expected.mean(), abs=2e-3)
        assert entry["stderr"] == pytest.approx(expected.std(ddof=1) / 60**0.5, rel=1e-3) and entry["n"] == 60
    by_dimension = 0.5 * (np.exp(2 * log_scale) + loc**2 - 1 - 2 * log_scale)
    assert numbers["kl"]["value"] == pytest.approx(by_dimension.sum(1).mean(), rel=1e-4)
    assert numbers["kl_per_dim"] == pytest.approx(by_dimension.mean(0), rel=1e-4)
    assert numbers["reconstruction"]["value"] == pytest.approx(log_p_x.mean(), abs=2e-3)
    assert numbers["elbo"]["value"] == pytest.approx(log_p_x.mean() - by_dimension.sum(1).mean(), abs=2e-3)
    assert numbers["bits_per_dim"]["value"] == pytest.approx(-numbers["log_likelihood"]["value"] / (64 * math.log(2)))
    assert numbers["active_units"]["value"] == (loc.var(0, ddof=1) > 0.01).sum()
    values = [numbers["log_likelihood_by_samples"][k]["value"] for k in ("1", "10", "100")]
    assert values[0] < values[1] < values[2]


def test_errors_are_those_of_the_reconstructions(run, tmp_path):
    numbers = evaluated(run, tmp_path)
    model, _, settings, _ = trained.load(run / "checkpoints" / "best.safetensors", "cpu")
    x = parts.dataset(settings).splits().test.images.float() / 255
    with torch.no_grad():
        mse = (model.likelihood.image(model.reconstruct(x)) - x).square().mean((1, 2, 3)).double().numpy()
    assert numbers["mse"]["value"] == pytest.approx(mse.mean(), rel=1e-5)
    assert numbers["psnr"]["value"] == pytest.approx((10 * np.log10(1 / mse)).mean(), rel=1e-5)


@pytest.mark.parametrize("memory", ["10KB", "1MB", "2 GB"])
def test_the_memory_changes_no_value(memory, run, tmp_path):
    expected, numbers = evaluated(run, tmp_path, "limit=70"), evaluated(run, tmp_path, "limit=70", f"memory={memory}")
    for key in ("elbo", "log_likelihood"):
        assert numbers[key]["value"] == pytest.approx(expected[key]["value"], abs=1e-4)
    assert evaluated(run, tmp_path, "limit=70", "seed=1")["elbo"]["value"] != expected["elbo"]["value"]


@pytest.mark.parametrize(("split", "images"), [("train", 1417), ("validation", 200), ("test", 180)])
def test_every_split_is_scored_and_probes_are_not_asked_about_their_own_images(split, images, run, tmp_path):
    numbers = evaluated(run, tmp_path, f"split={split}", "num_importance_samples=2")
    assert numbers["elbo"]["n"] == images
    assert ("knn_accuracy" in numbers) == ("linear_probe_accuracy" in numbers) == (split != "train")
    if split != "train":
        assert 0.4 < numbers["knn_accuracy"]["value"] <= 1 and numbers["knn_accuracy"]["n"] == images


def test_the_training_split_of_a_dynamic_set_is_drawn_once(tmp_path):
    run = trained_run(tmp_path / "run", "dataset.binarize=dynamic", "epochs=1")
    one, two = (evaluated(run, tmp_path, "split=train", "num_importance_samples=2") for _ in range(2))
    assert one == two and "bits_per_dim" not in one


def test_what_does_not_apply_is_absent(tmp_path):
    flow = ["prior=flow", "posterior=full_normal", "likelihood=normal", "conditional=true", "epochs=1"]
    numbers = evaluated(trained_run(tmp_path / "run", *flow), tmp_path)
    assert not {"kl_per_dim", "bits_per_dim", "knn_accuracy", "linear_probe_accuracy"} & numbers.keys()
    assert {"elbo", "log_likelihood", "mmd", "active_units", "index_code_mi"} <= numbers.keys()


# Other data


def test_the_data_of_the_training_at_another_place_keep_what_was_held_out(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    digits = load_digits()
    np.savez(tmp_path / "mine.npz", train=digits.images[:300].astype(np.uint8), train_labels=digits.target[:300])
    own = [f"dataset.path={tmp_path / 'mine.npz'}", "epochs=1"]
    trained_run(tmp_path / "run", "dataset=arrays", *own)
    here = evaluated(tmp_path / "run", tmp_path)
    (tmp_path / "mine.npz").rename(tmp_path / "moved.npz")
    there = evaluated(tmp_path / "run", tmp_path, f"dataset.path={tmp_path / 'moved.npz'}")
    assert here["elbo"]["n"] == 30 and "knn_accuracy" in here
    assert {key: there[key] for key in KEYS} == {key: here[key] for key in KEYS}


def test_no_classifier_is_tested_on_images_that_it_was_trained_on(run, tmp_path):
    """Labels without meaning: a test on training images would be better than chance."""
    rng = np.random.default_rng(0)
    noise_ = rng.integers(0, 256, (200, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", train=noise_, train_labels=rng.integers(0, 2, 200))
    numbers = evaluated(run, tmp_path, f"dataset.path={tmp_path / 'noise.npz'}")
    assert numbers["elbo"]["n"] == 200
    assert not {"knn_accuracy", "linear_probe_accuracy"} & numbers.keys()


def test_a_file_does_not_choose_where_something_is_written(folder, tmp_path):
    settings = ["dataset=folder", f"dataset.path={folder}", "dataset.image_size=8", f"dataset.cache={tmp_path / 'own'}"]
    trained_run(tmp_path / "run", *settings, "epochs=1", "batch_size=4")
    shutil.rmtree(tmp_path / "own")
    (tmp_path / "own").mkdir()
    evaluated(tmp_path / "run", tmp_path, "limit=1")
    assert list((tmp_path / "own").iterdir()) == []


def test_other_data_of_the_same_shape_are_scored_whole(run, tmp_path):
    images = load_digits().images.astype(np.uint8)[:50] * 15
    np.savez(tmp_path / "other.npz", images)
    numbers = evaluated(run, tmp_path, f"dataset.path={tmp_path / 'other.npz'}")
    assert numbers["elbo"]["n"] == 50 and numbers["data"] == "arrays" and "knn_accuracy" not in numbers
    noise_ = np.random.default_rng(0).integers(0, 256, (50, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "noise.npz", noise_)
    worse = evaluated(run, tmp_path, f"dataset.path={tmp_path / 'noise.npz'}")
    assert worse["log_likelihood"]["value"] < numbers["log_likelihood"]["value"] - 50


@pytest.mark.parametrize(
    ("shape", "dtype"), [((20, 9, 8), np.uint8), ((20, 8, 8), np.float32), ((20, 3, 8, 8), np.uint8)]
)
def test_data_of_another_shape_or_support_are_refused(shape, dtype, run, tmp_path):
    np.savez(
        tmp_path / "other.npz",
        (np.random.default_rng(0).random(shape) * (1 if dtype == np.float32 else 255)).astype(dtype),
    )
    with pytest.raises(DataError, match="these images are (1x9x8|3x8x8|floats)"):
        evaluated(run, tmp_path, f"dataset.path={tmp_path / 'other.npz'}")


@pytest.mark.parametrize(
    "setting",
    [
        "split=all",
        "num_importance_samples=0",
        "limit=0",
        "memory=lots",
        "memory=0MB",
        "dataset=mnist",
        "dataset.pth=x",
        "n=3",
    ],
)
def test_wrong_settings_are_refused_by_name(setting, run):
    with pytest.raises(ConfigError, match=setting.partition("=")[0].partition(".")[0]):
        evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", setting]))


def test_an_output_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="found.json cannot be written"):
        evaluated(run, tmp_path / "file")


def test_a_missing_validation_split_is_named(tmp_path):
    run = trained_run(tmp_path / "run", "dataset.validation=0", "epochs=1")
    with pytest.raises(ConfigError, match="split=validation: the model was trained without one"):
        evaluated(run, tmp_path, "split=validation")


def test_the_command_prints_a_table_and_answers_in_one_line(run, tmp_path, capsys):
    done = vae("evaluate", f"checkpoint={run}", "limit=20", "num_importance_samples=3", "output=x.json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "log_likelihood" in done.stdout and (tmp_path / "x.json").exists() and not (tmp_path / "outputs").exists()
    with pytest.raises(SystemExit) as ended:
        cli.evaluate(["checkpoint=nowhere"])
    err = capsys.readouterr().err
    assert ended.value.code == 1 and err.count("\n") == 1 and "nowhere" in err


def test_black_images_are_scored_by_a_model_of_bytes(run, tmp_path):
    np.savez(tmp_path / "black.npz", np.zeros((5, 8, 8), np.uint8))
    assert evaluated(run, tmp_path, f"dataset.path={tmp_path / 'black.npz'}")["elbo"]["n"] == 5


def test_gray_images_are_refused_by_a_model_of_binary_pixels_with_the_way_to_convert_them(tmp_path):
    gray = np.arange(40 * 64).astype(np.uint8).reshape(-1, 8, 8)
    np.savez(tmp_path / "bits.npz", (gray > 127).astype(np.uint8))
    np.savez(tmp_path / "gray.npz", gray)
    trained_run(tmp_path / "run", "dataset=arrays", f"dataset.path={tmp_path / 'bits.npz'}", "epochs=1")
    with pytest.raises(DataError, match=r"8-bit images, .* binary pixels; save \(x > 127\).astype\("):
        evaluated(tmp_path / "run", tmp_path, f"dataset.path={tmp_path / 'gray.npz'}")


# What evaluation.json is for


def test_a_smaller_evaluation_or_one_of_something_else_leaves_the_runs_own(run, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = run / "evaluation.json"
    own.unlink(missing_ok=True)

    def kept_after(*settings):
        capsys.readouterr()
        evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", *settings]))
        numbers = json.loads(own.read_text())
        return numbers["limit"], numbers["num_importance_samples"], capsys.readouterr().err

    assert kept_after("limit=9", "num_importance_samples=2") == (9, 2, "")
    assert kept_after("num_importance_samples=3") == (None, 3, "")
    printed = "these numbers are printed, and written where output= names a file"
    reason = f"note: {own} has more already: 180 images with 3 draws each; {printed}"
    for smaller in (["limit=9", "num_importance_samples=9"], ["num_importance_samples=2"]):
        assert kept_after(*smaller) == (None, 3, f"{reason}\n")
    assert kept_after("num_importance_samples=4", "seed=1")[1:] == (4, "")
    assert kept_after("split=train", "limit=9", "num_importance_samples=5")[1:] == (
        4,
        f"note: {own} is for the test split; {printed}\n",
    )
    last = f"checkpoint={run / 'checkpoints' / 'last.safetensors'}"
    assert "is for the checkpoint of the run itself" in kept_after("num_importance_samples=5", last)[2]
    best = f"checkpoint={run / 'checkpoints' / 'best.safetensors'}"
    assert kept_after("num_importance_samples=5", best)[1:] == (5, "")
    assert kept_after("limit=9", "num_importance_samples=2", "output=part.json")[1:] == (5, "")
    assert json.loads((tmp_path / "part.json").read_text())["limit"] == 9


def test_an_evaluation_of_weights_that_were_trained_on_is_replaced(run):
    own = run / "evaluation.json"
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=2"]))
    own.write_text(json.dumps(json.loads(own.read_text()) | {"step": 1, "num_importance_samples": 900}))
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "limit=5", "num_importance_samples=2"]))
    assert json.loads(own.read_text())["limit"] == 5
