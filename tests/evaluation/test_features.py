"""Features of images: which network, what it gives, and what is refused."""

import builtins
import hashlib
import sys
import textwrap
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.inception import random_weights
from vae_cli.data import Digits
from vae_cli.data.download import RemoteFile
from vae_cli.errors import ConfigError, DataError
from vae_cli.evaluation import classifier, features

OTHERS = (
    "name other features: the .safetensors file of a classifier of images that are alike, inception, an .onnx file or "
    "a class such as my_package.MyFeatures"
)


@pytest.fixture(scope="module")
def data():
    return Digits().splits()


@pytest.fixture(autouse=True)
def _short(monkeypatch, tmp_path):
    monkeypatch.setattr(classifier, "STEPS", 20)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def of(used, images):
    return used.extract([images[:70], images[70:]], torch.device("cpu"))


def images_of(data, count=90):
    return data.test.images[:count] / data.test.scale


def in_color(data):
    return replace(data, facts=replace(data.facts, shape=(3, 8, 8)))


# The classifier


def test_gray_images_with_labels_have_those_of_a_classifier(data):
    used = features.find("auto", None, None, data, "gray")
    assert used.name == "classifier of the labels of digits" and not used.is_inception
    found = of(used, images_of(data))
    assert found.shape == (90, 64) and found.dtype == torch.float32
    torch.testing.assert_close(found, used.network(images_of(data)), atol=1e-5, rtol=1e-5)
    facts = used.facts(64)
    assert facts == {"name": used.name, "digest": used.digest, "n_features": 64, "accuracy": used.accuracy}


def test_its_file_can_be_named_and_has_the_same_digest(data, tmp_path):
    used = features.find("auto", None, None, data, "gray")
    (path,) = (tmp_path / "cache").rglob("*.safetensors")
    named = features.find(str(path), None, None, data, "gray")
    assert (named.digest, named.name, named.accuracy) == (used.digest, used.name, used.accuracy)
    other = features.find("auto", None, None, data, "binary")  # is trained anew
    assert len([*(tmp_path / "cache").rglob("*.safetensors")]) == 2 and other.digest == used.digest


def test_an_error_says_what_to_name_for_gray_images_without_labels(data):
    bare = replace(data, train=replace(data.train, labels=None))
    with pytest.raises(ConfigError) as caught:
        features.find("auto", None, None, bare, "gray")
    assert str(caught.value).endswith(f"a classifier of their labels, and digits has none; {OTHERS}")
    large = replace(data, facts=replace(data.facts, shape=(1, 65, 65)))
    with pytest.raises(ConfigError, match="above 64x64"):
        features.find("auto", None, None, large, "gray")


# Files and classes


def test_an_onnx_file_gives_what_the_network_gives(data, tmp_path):
    network, path = classifier.Classifier(10).eval(), tmp_path / "own.onnx"
    batch = {0: torch.export.Dim("batch")}
    torch.onnx.export(network, (torch.rand(2, 1, 8, 8),), path, dynamic_shapes=(batch,), dynamo=True, verbose=False)
    used = features.find(str(path), None, None, data, "gray")
    torch.testing.assert_close(of(used, images_of(data)), network(images_of(data)), atol=1e-4, rtol=1e-4)
    assert used.name == "own.onnx"
    (weights,) = tmp_path.glob("own.onnx.*")  # the exporter keeps them in a file of their own
    weights.write_bytes(weights.read_bytes()[:-4] + bytes(range(1, 5)))
    assert features.find(str(path), None, None, data, "gray").digest != used.digest
    with pytest.raises(ConfigError, match="own.onnx does not take images of 3x8x8"):
        used.extract([torch.rand(4, 3, 8, 8)], torch.device("cpu"))


@pytest.fixture
def package(tmp_path, monkeypatch):
    (tmp_path / "odd_features.py").write_text(
        textwrap.dedent("""
        import torch
        class Pooled(torch.nn.Module):
            def forward(self, x):
                return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)
        class Wide(torch.nn.Module):
            def forward(self, x):
                return x
        class Broken(Pooled):
            def forward(self, x):
                return super().forward(x) / 0
        class Needy(Pooled):
            def __init__(self, width):
                super().__init__()
        class NoModule:
            pass
        """)
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield "odd_features"
    sys.modules.pop("odd_features", None)


def test_a_class_of_ones_own_is_used_if_it_is_allowed(package, data):
    used = features.find(f"{package}.Pooled", None, package, data, "gray")
    expected = nn.functional.adaptive_avg_pool2d(images_of(data), 2).flatten(1)
    torch.testing.assert_close(of(used, images_of(data)), expected)
    torch.testing.assert_close(
        used.extract([torch.tensor([[[[-3.0, 9.0]]]])], torch.device("cpu")), torch.tensor([[0.0, 1, 0, 1]])
    )
    with pytest.raises(ConfigError, match=f"^features={package}.Pooled is not of vae_cli; .* add allow={package}$"):
        features.find(f"{package}.Pooled", None, None, data, "gray")


@pytest.mark.parametrize(
    ("name", "message"), [("Wide", r"values of shape \(64, 1, 8, 8\)"), ("Broken", "finite numbers of shape")]
)
def test_what_are_no_features_is_refused(name, message, package, data):
    used = features.find(f"{package}.{name}", None, package, data, "gray")
    with pytest.raises(ConfigError, match=message):
        of(used, images_of(data))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nonsense", "features accepts auto, inception, an .onnx or .safetensors file, or a class such as"),
        ("a file", "features accepts auto"),
        ("none.onnx", "none.onnx: it is no ONNX file that can be read"),
        ("none.safetensors", "none.safetensors: there is no such file"),
        ("odd_features.Gone", "features=odd_features.Gone cannot be imported"),
        ("odd_features.NoModule", "features=odd_features.NoModule is no Module class"),
        ("odd_features.Needy", "Needy does not take these settings: .*width"),
    ],
)
def test_other_names_are_refused(name, message, package, data):
    with pytest.raises(ConfigError, match=message):
        features.find(name, None, package, data, "gray")


# The Inception network


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A file of random weights that counts as the right one."""
    path = tmp_path / "weights.pth"
    torch.save(random_weights(), path)
    checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    monkeypatch.setattr(features, "INCEPTION", RemoteFile("w.pth", checksum, ("http://127.0.0.1:1/w.pth",)))
    return path


@pytest.mark.slow
def test_color_images_have_those_of_inception_as_torchmetrics_makes_them(weights, data):
    from torchmetrics.image.fid import FrechetInceptionDistance

    used = features.find("auto", str(weights), None, in_color(data), "color")
    assert used.is_inception and used.name == "Inception v3"
    x = (torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    metric = FrechetInceptionDistance(2048, feature_extractor_weights_path=str(weights), antialias=False)
    expected = metric.inception((x * 255).round().byte())
    found = used.extract([x], torch.device("cpu"))
    assert found.shape == (6, 2048) and found.std(0).mean() > 0.01
    torch.testing.assert_close(found, expected.float(), atol=1e-4 * float(found.abs().max()), rtol=1e-4)
    gray = used.extract([x[:2, :1]], torch.device("cpu"))
    torch.testing.assert_close(gray, used.extract([x[:2, :1].expand(-1, 3, -1, -1)], torch.device("cpu")))


def test_weights_of_another_checksum_are_not_opened(tmp_path, data, monkeypatch):
    path = tmp_path / "weights.pth"
    path.write_bytes(b"another's pickle")
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("opened"))
    with pytest.raises(ConfigError, match="weights=.*weights.pth: this is not https://github.com/.*; it is not opened"):
        features.find("inception", str(path), None, data, "gray")
    with pytest.raises(ConfigError, match="missing.pth: it cannot be read"):
        features.find("inception", str(tmp_path / "missing.pth"), None, data, "gray")


def test_the_weights_are_pickles_of_tensors_alone(tmp_path, data, monkeypatch):
    class Odd:
        def __reduce__(self):
            return print, ("run",)

    path = tmp_path / "odd.pth"
    torch.save({"a": Odd()}, path)
    checksum = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    monkeypatch.setattr(features, "INCEPTION", RemoteFile("w.pth", checksum, ()))
    with pytest.raises(Exception, match="Weights only load failed"):
        features.find("inception", str(path), None, data, "gray")


def test_weights_that_cannot_be_downloaded_say_how_to_name_them(data, monkeypatch, tmp_path):
    unreachable = replace(features.INCEPTION, mirrors=("http://127.0.0.1:1/w.pth",))
    monkeypatch.setattr(features, "INCEPTION", unreachable)
    with pytest.raises(DataError) as caught:
        features.find("auto", None, None, in_color(data), "color")
    text = str(caught.value)
    assert "name the file with weights=FILE" in text and "by hand" in text and "data_dir" not in text
    assert str(tmp_path / "cache") in text


def test_inception_without_its_library_names_the_extra(data, monkeypatch):
    whole = builtins.__import__

    def without(name, *arguments, **keywords):
        if name.startswith("torch_fidelity"):
            raise ImportError(f"No module named {name!r}", name="torch_fidelity")
        return whole(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"features=inception needs torch_fidelity.*vae-cli\[inception\]"):
        features.find("inception", None, None, data, "gray")


def test_weights_go_with_inception_alone(data):
    with pytest.raises(ConfigError, match="weights=w.pth: these are the weights of features=inception"):
        features.find("auto", "w.pth", None, data, "gray")


def test_numbers_of_images_are_reported_as_they_are_done():
    used, seen = features.Features(nn.Flatten(), "flat", ""), []
    found = used.extract([torch.rand(150, 1, 2, 2), torch.rand(7, 1, 2, 2)], torch.device("cpu"), seen.append)
    assert seen == [150, 7] and found.shape == (157, 4) and np.isfinite(found.numpy()).all()
