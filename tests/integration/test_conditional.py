"""Conditional models: q(z|x, y), p(x|z, y) and p(z|y) where the prior is made of posteriors."""

import json
import math

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier
from torch.distributions import Categorical, Independent, MixtureSameFamily, MultivariateNormal, Normal, kl_divergence

from vae_cli.build import parts, registry
from vae_cli.commands import sample
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    FlowPosterior,
    FullNormalPosterior,
    NormalLikelihood,
    StandardNormalPrior,
    VampPrior,
)
from vae_cli.errors import ConfigError, UserError
from vae_cli.models.vae import VAE
from vae_cli.networks import LabeledDecoder, LabeledEncoder, MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO
from vae_cli.training.run import run as train

SHAPE, D, CLASSES, SIGMA = (1, 3, 4), 2, 3, 0.4
F64 = torch.float64


def conditional(posterior, prior=None):
    """A random model, linear in x, z and y."""
    torch.manual_seed(1)
    encoder = LabeledEncoder(MLPEncoder((2, 3, 4), posterior.features, hidden=[]), SHAPE, CLASSES)
    decoder = LabeledDecoder(MLPDecoder(D + CLASSES, SHAPE, hidden=[]), CLASSES)
    prior = prior or StandardNormalPrior(D)
    return VAE(encoder, decoder, posterior, prior, NormalLikelihood(SHAPE, SIGMA), classes=CLASSES).double()


def batch():
    torch.manual_seed(2)
    return torch.rand(6, *SHAPE, dtype=F64), torch.tensor([0, 1, 2, 2, 1, 0])


def test_elbo_plus_kl_to_the_true_posterior_is_log_p_of_x_given_y():
    """p(x|y) = N(b + V_y, W Wᵀ + σ² I) with the decoder's columns for z and for the labels."""
    model, (x, y) = conditional(FullNormalPosterior(D)), batch()
    weight, b = model.decoder.network.output.weight.detach(), model.decoder.network.output.bias.detach()
    w, mean = weight[:, :D], b + weight[:, D:].T[y]
    sigma = model.likelihood.log_scale.exp()
    log_p = MultivariateNormal(mean, w @ w.T + sigma**2 * torch.eye(12, dtype=F64)).log_prob(x.flatten(1))
    covariance = torch.linalg.inv(torch.eye(D, dtype=F64) + w.T @ w / sigma**2)
    true = MultivariateNormal((x.flatten(1) - mean) @ w @ covariance / sigma**2, covariance)
    q = model.encode(x, y)
    gap = kl_divergence(MultivariateNormal(q.mean, scale_tril=q.scale_tril), true)
    nodes = math.sqrt(D) * torch.cat([torch.eye(D), -torch.eye(D)]).double()  # exact for a quadratic integrand
    bound = ELBO(kl="analytic", mc_samples=2 * D)(model, (x, y), nodes[:, None].expand(-1, len(x), -1), 0)
    torch.testing.assert_close(bound.elbo + gap, log_p, rtol=0, atol=1e-9)


def test_the_label_reaches_posterior_and_images_and_no_label_another_example():
    model, (x, y) = conditional(DiagonalNormalPosterior(D)), batch()
    z, other = torch.randn(6, D, dtype=F64), (y + 1) % CLASSES
    assert (model.encode(x, y).mean != model.encode(x, other).mean).all()
    assert (model.decode(z, y).mean != model.decode(z, other).mean).all()
    torch.testing.assert_close(model.encode(x, y).mean[2:3], model.encode(x[2:3], y[2:3]).mean)
    torch.testing.assert_close(model.decode(z, y).mean[2:3], model.decode(z[2:3], y[2:3]).mean)
    many = model.decode(torch.stack([z, z]), y).mean
    torch.testing.assert_close(many[1], model.decode(z, y).mean)


@pytest.mark.parametrize("images", [2, 6], ids=["fewer images than classes", "more images than classes"])
@pytest.mark.parametrize("make", [DiagonalNormalPosterior, FullNormalPosterior, FlowPosterior])
def test_a_vampprior_is_the_mixture_of_its_pseudo_inputs_posteriors_with_the_images_own_label(make, images):
    prior = VampPrior(D, SHAPE, components=4, classes=CLASSES)
    model, (x, y) = conditional(make(D), prior), batch()
    x, y = x[-images:], y[-images:]
    evidence = model.evidence(x, torch.randn(5, images, D, dtype=F64), y)
    pseudo = prior.logits.sigmoid()
    for i, label in enumerate(y):
        q = model.encode(pseudo, label.expand(4))
        each = q.log_prob(evidence.z[:, i].unsqueeze(1))
        torch.testing.assert_close(evidence.log_p_z[:, i], each.logsumexp(1) - math.log(4))
    p = model.latent_prior(y)
    drawn, log_prob = p.rsample_and_log_prob(torch.randn(7, images, D + 1, dtype=F64))
    assert drawn.shape == (7, images, D)
    torch.testing.assert_close(log_prob, p.log_prob(drawn))


def test_a_conditional_vampprior_is_torchs_mixture():
    prior = VampPrior(D, SHAPE, components=4, classes=CLASSES)
    model = conditional(DiagonalNormalPosterior(D), prior)
    q = model.encode(prior.logits.sigmoid(), torch.full((4,), 2))
    expected = MixtureSameFamily(Categorical(logits=torch.zeros(4, dtype=F64)), Independent(Normal(q.loc, q.scale), 1))
    z = torch.randn(7, 1, D, dtype=F64)
    torch.testing.assert_close(model.latent_prior(torch.tensor([2])).log_prob(z), expected.log_prob(z))


def test_a_prior_made_of_posteriors_draws_where_its_labels_posteriors_lie():
    prior = VampPrior(1, (1, 1, 1), components=2, classes=2)

    def infer(x, y):
        from vae_cli.distributions import DiagonalNormal

        return DiagonalNormal(100.0 * y.unsqueeze(-1).float(), torch.zeros(len(y), 1))

    z, _ = prior(infer, torch.tensor([0, 1, 1])).rsample_and_log_prob(torch.randn(50, 3, 2))
    assert (z[:, 0].abs() < 10).all() and ((z[:, 1:] - 100).abs() < 10).all()


# Through the commands


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("conditional") / "run"
    settings = ["conditional=true", "epochs=40", "latent_dim=4", "device=cpu", "batch_size=64", "optimizer.lr=3e-3"]
    assert (
        train(
            compose.compose("train", [*settings, "report=false", "encoder.hidden=[128]", "decoder.hidden=[128]"]),
            directory,
        )
        == 0
    )
    return directory


def drawn(run, tmp_path, *overrides):
    sample.run(
        compose.compose("sample", [f"checkpoint={run}", f"output={tmp_path / 'x.npz'}", "format=npz", *overrides])
    )
    with np.load(tmp_path / "x.npz") as archive:
        return archive["images"], archive["labels"]


def test_a_generated_digit_looks_like_its_label(run, tmp_path):
    """A nearest-neighbour classifier of real digits, which is right 98 times in 100 on those, names nearly all."""
    data = parts.dataset(compose.compose("train")).splits()
    judge = KNeighborsClassifier(3).fit(data.train.images.flatten(1).numpy(), data.train.labels.numpy())
    images, labels = drawn(run, tmp_path, "n=200", "label=all")
    np.testing.assert_array_equal(labels, np.arange(200) % 10)
    assert np.mean(judge.predict(images.reshape(200, -1) * 255) == labels) > 0.9
    threes, labels = drawn(run, tmp_path, "n=70", "label=3")
    assert (labels == 3).all() and np.mean(judge.predict(threes.reshape(70, -1) * 255) == 3) > 0.9


def test_without_a_label_every_class_has_its_turn_and_the_number_changes_nothing(run, tmp_path):
    images, labels = drawn(run, tmp_path, "n=25")
    again, _ = drawn(run, tmp_path, "n=150", "label=all")
    np.testing.assert_array_equal(images, again[:25])
    np.testing.assert_array_equal(labels, np.arange(25) % 10)


@pytest.mark.parametrize("label", ["10", "-1", "1.5", "some"])
def test_a_label_the_model_does_not_know_is_refused(label, run):
    with pytest.raises(ConfigError, match="label"):
        sample.run(compose.compose("sample", [f"checkpoint={run}", f"label={label}"]))


def test_a_model_without_labels_refuses_one(tmp_path):
    narrow = ["encoder.hidden=[4]", "decoder.hidden=[4]", "epochs=0", "device=cpu"]
    train(compose.compose("train", narrow), tmp_path / "run")
    with pytest.raises(ConfigError, match="conditional=true"):
        sample.run(compose.compose("sample", [f"checkpoint={tmp_path / 'run'}", "label=3"]))


@pytest.mark.parametrize("have", [[], ["train_labels"]])
def test_data_without_a_label_for_every_image_are_refused(have, tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    labels = {name: np.arange(40) % 4 for name in have}
    np.savez(tmp_path / "x.npz", train=images, test=images, **labels)
    settings = ["conditional=true", "dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}", "epochs=1"]
    with pytest.raises(UserError, match="conditional=true needs a label for every image") as refused:
        train(compose.compose("train", settings), tmp_path / "run")
    assert "\n" not in str(refused.value)


def test_arrays_with_labels_train_conditionally(tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", train=images, labels=np.arange(60) % 4)
    settings = ["conditional=true", "dataset=arrays", f"dataset.path={tmp_path / 'x.npz'}", "epochs=1"]
    train(compose.compose("train", settings), tmp_path / "run")
    assert "y one of 4 labels" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["status"] == "completed"


OWN = """
from torch import nn
from torch.nn.functional import one_hot


class Seeing(nn.Module):  # asks for the labels itself
    def __init__(self, shape, out_features, classes):
        super().__init__()
        assert shape == (1, 8, 8)
        self.classes, self.x = classes, nn.Linear(64, out_features)
        self.y = nn.Linear(classes, out_features)

    def forward(self, x, y):
        return self.x(x.flatten(1)) + self.y(one_hot(y, self.classes).float())


class Blind(nn.Module):  # knows of no labels
    def __init__(self, shape, out_features):
        super().__init__()
        assert shape == (2, 8, 8)
        self.x = nn.Linear(128, out_features)

    def forward(self, x):
        return self.x(x.flatten(1))
"""


@pytest.mark.parametrize("name", ["Seeing", "Blind"])
def test_a_network_of_ones_own_sees_labels_by_itself_or_is_shown_them(name, tmp_path, monkeypatch):
    (tmp_path / f"own_{name.lower()}.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    target = f"own_{name.lower()}.{name}"
    composed = compose.compose("train", ["conditional=true", f"encoder._target_={target}"])
    checked, _ = registry.check_groups(composed, frozenset({"encoder._target_"}))
    checked = parts.with_choices(checked, facts := DataFacts("digits", (1, 8, 8), "levels256", 10, 50))
    model = parts.model(checked, facts)
    x, y = torch.rand(4, 1, 8, 8), torch.tensor([0, 9, 3, 3])
    assert (model.encode(x, y).mean != model.encode(x, y.roll(1)).mean).any()
    assert isinstance(model.encoder, LabeledEncoder) == (name == "Blind")
