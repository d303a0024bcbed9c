"""vae-evaluate generation=true: what is compared with what, in features of one's own, against NumPy and SciPy."""

import json
import sys
import textwrap

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.datasets import load_digits

from tests.support.generation import drawn, run_of
from tests.support.image_commands import reconstructed
from vae_cli.build import parts
from vae_cli.commands import evaluate, generation
from vae_cli.config import compose
from vae_cli.errors import ConfigError
from vae_cli.evaluation import classifier
from vae_cli.training.run import run as train

PIXELS = ["features=odd_pixels.Pixels", "allow=odd_pixels"]
NUMBERS = {"frechet_distance", "kernel_distance", "precision", "recall", "density", "coverage"}


@pytest.fixture(autouse=True)
def _surroundings(tmp_path, monkeypatch):
    """Features of one's own: the means of four parts of an image; and a classifier that is trained in no time."""
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "odd_pixels.py").write_text(
        textwrap.dedent("""
        import torch
        class Pixels(torch.nn.Module):
            def forward(self, x):
                return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("odd_pixels", None)


@pytest.fixture(scope="module")
def gray(tmp_path_factory):
    return run_of(tmp_path_factory)


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory):
    return run_of(tmp_path_factory, "dataset.binarize=dynamic")


def scored(run, tmp_path, *settings, features=PIXELS):
    output = tmp_path / "found.json"
    few = ["num_importance_samples=1", "generation=true"]
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", f"output={output}", *few, *features, *settings]))
    return json.loads(output.read_text())["generation"]


def quarters(images):
    images = np.asarray(images, np.float64).reshape(-1, 2, 4, 2, 4)
    return images.mean((2, 4)).reshape(-1, 4)


def distance(one, other):
    """Of the normals of two sets of 8x8 images, by SciPy."""
    x, y = quarters(one), quarters(other)
    root = scipy.linalg.sqrtm(np.cov(x.T) @ np.cov(y.T)).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(np.cov(x.T) + np.cov(y.T) - 2 * root)


def splits(*settings):
    data = parts.dataset(compose.compose("train", settings)).splits()
    return data, *(each.images.float().numpy() / each.scale for each in (data.train, data.test))


def close(number, expected):
    assert number["value"] == pytest.approx(expected, rel=1e-3)


# What is compared


@pytest.mark.parametrize("draw", [False, True])
def test_samples_reconstructions_and_training_images_are_compared_with_the_test_split(draw, gray, tmp_path):
    found = scored(gray, tmp_path, f"draw={str(draw).lower()}", "seed=3")
    data, train_images, test = splits()
    assert (found["n"], found["drawn"], found["images"], found["seed"]) == (180, draw, "gray", 3)
    assert list(found["samples"]) == ["prior", "gmm", "aggregate"]
    for name, numbers in found["samples"].items():
        images = drawn(gray, tmp_path, f"sampler={name}", "n=180", "seed=3", f"draw={str(draw).lower()}")["images"]
        close(numbers["frechet_distance"], distance(images.clip(0, 1), test))
    spread = data.train.spread(180)
    close(found["train"]["frechet_distance"], distance(spread.select(slice(0, 180)).numpy() / 255, test))
    assert distance(train_images, test) < distance(images, test)
    if not draw:
        with np.load(reconstructed(gray, tmp_path / "r.npz", "format=npz", "limit=180")) as archive:
            close(found["reconstructions"]["frechet_distance"], distance(archive["images"], test))
    for numbers in (*found["samples"].values(), found["reconstructions"], found["train"]):
        assert numbers.keys() == NUMBERS
        assert all({"value", "stderr", "n"} == number.keys() for number in numbers.values())


def test_images_of_a_dynamic_set_are_compared_with_the_gray_ones(dynamic, tmp_path):
    found, test = scored(dynamic, tmp_path), splits()[2]
    assert (found["drawn"], found["images"]) == (False, "gray")
    assert ((test > 0) & (test < 1)).mean() > 0
    close(found["samples"]["prior"]["frechet_distance"], distance(drawn(dynamic, tmp_path, "n=180")["images"], test))
    with np.load(reconstructed(dynamic, tmp_path / "r.npz", "format=npz", "limit=180")) as archive:
        close(found["reconstructions"]["frechet_distance"], distance(archive["images"], test))


def test_draws_of_a_dynamic_set_are_compared_with_binary_images(dynamic, tmp_path):
    found, (_, _, test) = scored(dynamic, tmp_path, "draw=true"), splits("dataset.binarize=dynamic")
    assert (found["drawn"], found["images"]) == (True, "binary") and {*np.unique(test)} == {0, 1}
    images = drawn(dynamic, tmp_path, "n=180", "draw=true")["images"]
    assert {*np.unique(images)} == {0, 1}
    close(found["samples"]["prior"]["frechet_distance"], distance(images, test))


@pytest.mark.parametrize("binarize", ["static", pytest.param("threshold", marks=pytest.mark.slow)])
def test_data_that_are_binary_are_compared_with_draws(binarize, tmp_path, tmp_path_factory):
    run = run_of(tmp_path_factory, f"dataset.binarize={binarize}", "epochs=1")
    found, (_, _, test) = scored(run, tmp_path), splits(f"dataset.binarize={binarize}")
    assert (found["drawn"], found["images"]) == (True, "binary")
    images = drawn(run, tmp_path, "n=180", "draw=true")["images"]
    close(found["samples"]["prior"]["frechet_distance"], distance(images, test))
    other = scored(run, tmp_path, "draw=false")
    assert (other["drawn"], other["images"]) == (False, "gray")
    digests = [scored(run, tmp_path, f"draw={draw}", features=[])["features"]["digest"] for draw in ("true", "false")]
    assert len({*digests}) == len([*(tmp_path / "cache").rglob("*.safetensors")]) == 2
    assert any(f"_{binarize}-" in path.name for path in (tmp_path / "cache").rglob("*.safetensors"))


def test_binary_files_have_no_gray_images(tmp_path, tmp_path_factory):
    bits = (load_digits().images > 8).astype(np.uint8)
    np.savez(tmp_path / "bits.npz", bits)
    run = run_of(tmp_path_factory, "dataset=arrays", f"dataset.path={tmp_path / 'bits.npz'}", "epochs=1")
    assert [scored(run, tmp_path, f"draw={draw}")["images"] for draw in ("null", "false")] == ["binary", "binary"]
    assert scored(run, tmp_path)["drawn"] is True
    with pytest.raises(ConfigError, match="a classifier of their labels, and arrays has none; name other features"):
        scored(run, tmp_path, features=[])


def test_a_part_of_the_images_and_of_the_samplers_is_compared_if_asked_for(gray, tmp_path):
    found, test = scored(gray, tmp_path, "limit=100", "samplers=[aggregate]"), splits()[2]
    assert found["n"] == 100 and list(found["samples"]) == ["aggregate"]
    images = drawn(gray, tmp_path, "n=100", "sampler=aggregate")["images"]
    spread = np.linspace(0, 179, 100).astype(int)  # over the split, whose first images may be of another kind
    close(found["samples"]["aggregate"]["frechet_distance"], distance(images, test[spread]))


def test_the_training_split_has_no_floor_and_validation_is_compared_with_its_own_images(gray, tmp_path):
    assert "train" not in scored(gray, tmp_path, "split=train", "limit=50")
    found = scored(gray, tmp_path, "split=validation", "samplers=[prior]")
    validation = splits()[0].validation.images.numpy() / 255
    close(found["samples"]["prior"]["frechet_distance"], distance(drawn(gray, tmp_path, "n=200")["images"], validation))
    assert found["n"] == 200 and "train" in found


def test_the_same_seed_gives_the_same_numbers(gray, tmp_path):
    torch.manual_seed(1)
    first = scored(gray, tmp_path, "limit=60", features=[])
    torch.manual_seed(2)
    assert scored(gray, tmp_path, "limit=60", features=[]) == first
    assert scored(gray, tmp_path, "limit=60", "seed=1", features=[])["samples"] != first["samples"]


# Models


def test_samples_of_a_conditional_model_have_the_labels_of_the_images(tmp_path, tmp_path_factory, monkeypatch):
    run = run_of(tmp_path_factory, "conditional=true")
    seen, whole = [], generation.generate_images

    def watched(sampler, count, draw_x, y):
        seen.append(y)
        return whole(sampler, count, draw_x, y)

    monkeypatch.setattr(generation, "generate_images", watched)
    found = scored(run, tmp_path, "limit=150")
    assert list(found["samples"]) == ["prior", "gmm", "aggregate"]
    labels = splits()[0].test.labels[np.linspace(0, 179, 150).astype(int)]
    assert len(seen) == 3 and all(torch.equal(y, labels) for y in seen)


def test_a_hierarchy_has_no_mixture(tmp_path, capsys):
    settings = ["model=ladder", "model.latents=[3,2]", "model.widths=[12,8]", "epochs=1", "report=false", "device=cpu"]
    train(compose.compose("train", [*settings, "dataset.binarize=dynamic"]), tmp_path / "run")
    found = scored(tmp_path / "run", tmp_path)
    assert list(found["samples"]) == ["prior", "aggregate"] and "reconstructions" in found
    note = "note: samplers: gmm is left out: a mixture is of one latent vector, and model=ladder is a hierarchy\n"
    assert note in capsys.readouterr().err


def test_few_images_of_a_label_are_too_few_for_a_mixture(tmp_path, tmp_path_factory, capsys):
    digits = load_digits()
    chosen = np.r_[np.flatnonzero(digits.target == 0)[:150], np.flatnonzero(digits.target == 1)[:9]]
    values = {"train": digits.images[chosen].astype(np.uint8) * 15, "train_labels": digits.target[chosen]}
    values |= {"test": values["train"][100:], "test_labels": values["train_labels"][100:]}
    np.savez(tmp_path / "few.npz", **values)
    own = ["dataset=arrays", f"dataset.path={tmp_path / 'few.npz'}", "dataset.validation=0", "conditional=true"]
    found = scored(run_of(tmp_path_factory, *own, "epochs=1"), tmp_path)
    assert "gmm" not in found["samples"]
    note = "gmm is left out: it needs 10 training images of each label, and there are 9\n"
    assert "aggregate" in found["samples"] and note in capsys.readouterr().err


# Data


def test_other_data_have_no_floor_and_no_samplers_of_training_images(gray, tmp_path, capsys):
    other = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "other.npz", other)
    path = f"dataset.path={tmp_path / 'other.npz'}"
    found = scored(gray, tmp_path, path)
    assert list(found["samples"]) == ["prior"] and "train" not in found and found["n"] == 60
    close(found["samples"]["prior"]["frechet_distance"], distance(drawn(gray, tmp_path, "n=60")["images"], other / 255))
    assert "aggregate is left out: it needs the images of the training" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="features=auto: .* dataset.path= names others; .*FILE.safetensors"):
        scored(gray, tmp_path, path, features=[])


def test_examples_that_are_no_images_are_refused_before_anything_is_computed(tmp_path, tmp_path_factory, monkeypatch):
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(300, 5)))
    own = ["dataset=arrays", f"dataset.path={tmp_path / 'rows.npy'}", "dataset.support=real", "epochs=1"]
    run = run_of(tmp_path_factory, *own)
    monkeypatch.setattr(evaluate, "score", lambda *_: pytest.fail("computed"))
    with pytest.raises(ConfigError) as caught:
        scored(run, tmp_path)
    assert str(caught.value) == "generation=true compares images, and this model's data are rows; leave it out"


def test_too_few_images_are_refused(gray, tmp_path):
    with pytest.raises(ConfigError, match="generation=true needs at least 20 images, and these are 19"):
        scored(gray, tmp_path, "limit=19")


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("samplers=[flow]", "samplers"),
        ("samplers=[]", "samplers"),
        ("samplers=prior", "samplers"),
        ("generation=yes please", "generation"),
        ("draw=often", "draw"),
        ("features=nothing", "features"),
        ("weights=w.pth", "weights"),
    ],
)
def test_wrong_settings_are_refused_by_name(setting, key, gray, tmp_path):
    with pytest.raises(ConfigError, match=f"^{key}="):
        scored(gray, tmp_path, setting, features=[])


# What is written


def test_the_classifier_is_named_with_its_accuracy_and_a_table_is_printed(gray, tmp_path, capsys):
    found = scored(gray, tmp_path, features=[])
    out = capsys.readouterr().out
    facts = found["features"]
    assert facts["name"] == "classifier of the labels of digits" and facts["n_features"] == 64
    assert 0.3 < facts["accuracy"] <= 1 and len(facts["digest"]) == 16 and found["biased"] is True
    assert found["k"] == {"precision": 3, "recall": 3, "density": 5, "coverage": 5}
    assert f"in 64 features (classifier of the labels of digits, {100 * facts['accuracy']:.1f} % right)" in out
    assert f"{found['samples']['gmm']['frechet_distance']['value']:.4f}" in out and "fid" not in out


def test_inception_has_the_names_of_its_distances(gray, tmp_path, monkeypatch):
    used = generation.Features(torch.nn.Flatten(), "Inception v3", "sha256:0", is_inception=True)
    monkeypatch.setattr(generation.features, "find", lambda *_: used)
    found = scored(gray, tmp_path, "limit=30", features=[])
    assert found["samples"]["prior"].keys() == NUMBERS - {"frechet_distance", "kernel_distance"} | {"fid", "kid"}


def test_a_run_keeps_what_another_evaluation_has_measured(tmp_path, tmp_path_factory, capsys):
    run = run_of(tmp_path_factory, "epochs=1")

    def kept_after(*settings):
        evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", *PIXELS, *settings]))
        numbers = json.loads((run / "evaluation.json").read_text())
        return numbers["num_importance_samples"], numbers.get("generation", {}).get("n"), capsys.readouterr().err

    assert kept_after("num_importance_samples=2", "limit=50", "generation=true")[:2] == (2, 50)
    assert kept_after("num_importance_samples=3")[:2] == (3, 50)  # without generation
    draws, images, note = kept_after("num_importance_samples=1", "generation=true")
    assert (draws, images) == (3, 180) and "has more already" in note and "gets those that are not there" in note
    assert kept_after("num_importance_samples=1", "generation=true", "limit=60")[:2] == (3, 180)
    assert kept_after("num_importance_samples=4")[:2] == (4, 180)
    assert "these numbers are printed" in kept_after("num_importance_samples=1")[2]
    own = run / "evaluation.json"
    of_others = {"weights": "0" * 16}  # after as many steps
    own.write_text(json.dumps(json.loads(own.read_text()) | of_others))
    assert kept_after("num_importance_samples=1")[:2] == (1, None)


def test_images_stream_in_chunks(gray, tmp_path, monkeypatch):
    sizes, whole = [], generation.Features.extract

    def watched(self, images, *arguments):
        return whole(self, (sizes.append(len(chunk)) or chunk for chunk in images), *arguments)

    monkeypatch.setattr(generation.Features, "extract", watched)
    scored(gray, tmp_path, "split=train")
    assert sum(sizes) == 5 * 1417 and max(sizes) <= 64
