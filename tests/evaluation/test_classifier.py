"""The classifier of labels: what it learns, that it is the same everywhere, and its file."""

import pytest
import torch

from vae_cli.data import Digits
from vae_cli.errors import ConfigError
from vae_cli.evaluation import classifier
from vae_cli.runs import tensor_file


@pytest.fixture(scope="module")
def data():
    return Digits().splits()


@pytest.fixture(autouse=True)
def _short(monkeypatch, tmp_path):
    monkeypatch.setattr(classifier, "STEPS", 60)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_it_learns_the_labels_and_its_features_are_standardized(data):
    trained = classifier.fit(data.train, data.test, "digits")
    x = data.test.images / data.test.scale
    right = (trained.network.classify(x).argmax(1) == data.test.labels).float().mean()
    assert trained.accuracy == pytest.approx(float(right)) and trained.accuracy > 0.85
    features = trained.network(data.train.images / data.train.scale)
    assert features.shape == (len(data.train), 64)
    torch.testing.assert_close(features.mean(0), torch.zeros(64), atol=1e-4, rtol=0)
    torch.testing.assert_close(features.std(0), torch.ones(64), atol=1e-3, rtol=0)


def test_it_is_the_same_whatever_torchs_stream_and_threads(data):
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    one = classifier.fit(data.train, data.test, "digits").network.state_dict()
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.manual_seed(5)
    torch.set_num_threads(2)
    try:
        with torch.no_grad():
            other = classifier.fit(data.train, data.test, "digits").network.state_dict()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("side", [1, 2, 3, 8, 28, 64])
def test_it_takes_images_of_every_size(side):
    network = classifier.Classifier(3)
    assert network(torch.rand(2, 1, side, side)).shape == (2, 64)
    assert network.classify(torch.rand(2, 1, side, side + 1)).shape == (2, 3)


def test_it_is_trained_once_for_each_digest_and_its_file_is_named(data, monkeypatch, capsys):
    first = classifier.load_or_train(data.train, data.test, "digits", "a")
    (path,) = (classifier.cache_dir() / "features").glob("*.safetensors")
    err = capsys.readouterr().err
    assert err.startswith("training a classifier of the labels of digits") and str(path) in err
    monkeypatch.setattr(classifier, "fit", lambda *_: pytest.fail("trained again"))
    second = classifier.load_or_train(data.train, data.test, "digits", "a")
    assert second.accuracy == first.accuracy and second.data == "digits"
    for name, value in first.network.state_dict().items():
        assert torch.equal(second.network.state_dict()[name], value)
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        classifier.load_or_train(data.train, data.test, "digits", "b")


def test_a_damaged_file_of_the_cache_is_made_again(data, capsys):
    classifier.load_or_train(data.train, data.test, "digits", "a")
    (path,) = (classifier.cache_dir() / "features").glob("*.safetensors")
    contents = path.read_bytes()
    path.write_bytes(contents[:-9] + bytes(9))
    classifier.load_or_train(data.train, data.test, "digits", "a")
    assert path.read_bytes() == contents and "it is trained again" in capsys.readouterr().err


def test_a_cache_that_cannot_be_written_is_said(data, tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert classifier.load_or_train(data.train, data.test, "digits", "a").accuracy > 0.5
    assert "the classifier is not kept" in capsys.readouterr().err


def test_held_out_images_without_labels_leave_the_accuracy_open(data):
    from dataclasses import replace

    trained = classifier.load_or_train(data.train, replace(data.test, labels=None), "digits", "a")
    assert trained.accuracy is None
    (path,) = (classifier.cache_dir() / "features").glob("*.safetensors")
    assert classifier.load(path).accuracy is None


@pytest.mark.parametrize("metadata", [{}, {"classifier": 3}, {"classifier": {"classes": "x", "data": "d"}}])
def test_a_file_of_something_else_is_refused(metadata, tmp_path):
    path = tmp_path / "x.safetensors"
    tensor_file.write(path, {"a": torch.ones(3)}, metadata)
    with pytest.raises(ConfigError, match="no classifier that vae-evaluate has trained"):
        classifier.load(path)


def stored(path, tensors, classes=2):
    facts = {"recipe": classifier.RECIPE, "classes": classes, "data": "digits", "accuracy": None}
    tensor_file.write(path, tensors, {"classifier": facts})
    return path


def test_a_file_takes_no_memory_for_the_classes_that_it_names(tmp_path, monkeypatch):
    path, devices, plain = tmp_path / "huge.safetensors", [], classifier.Classifier

    def watched(classes):
        devices.append((network := plain(classes)).logits.weight.device.type)
        return network

    stored(path, plain(2).state_dict(), classes=3)
    monkeypatch.setattr(classifier, "Classifier", watched)
    with pytest.raises(ConfigError, match="huge.safetensors: it is no classifier"):
        classifier.load(path)
    assert devices == ["meta"]


@pytest.mark.parametrize("classes", [2.0, "2", True, None])
def test_a_file_whose_number_of_classes_is_no_whole_number_is_refused(tmp_path, classes):
    with pytest.raises(ConfigError, match="it is no classifier"):
        classifier.load(stored(tmp_path / "odd.safetensors", classifier.Classifier(2).state_dict(), classes))


def test_a_file_with_values_of_another_type_is_refused(tmp_path):
    tensors = classifier.Classifier(2).state_dict()
    assert classifier.load(stored(tmp_path / "good.safetensors", tensors)).accuracy is None
    tensors["mean"] = tensors["mean"].double()
    with pytest.raises(ConfigError, match="it is no classifier"):
        classifier.load(stored(tmp_path / "odd.safetensors", tensors))
