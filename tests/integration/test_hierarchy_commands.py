"""The commands on a hierarchy: what is kept, what is drawn, what follows; and vae_cli.load beside them."""

import json
import math

import numpy as np
import pytest
import torch

import vae_cli
from tests.support.generation import close, drawn, run_of
from tests.support.image_commands import encoded, reconstructed
from vae_cli import noise
from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError
from vae_cli.generation import walks
from vae_cli.inference.inputs import load_data
from vae_cli.reporting import tables
from vae_cli.training.run import run as train

SIZES = [4, 3, 2]
SETTINGS = ["model=ladder", "model.latents=[4,3,2]", "model.widths=[24,16,12]", "dataset.binarize=threshold"]


@pytest.fixture(scope="module")
def hierarchy(tmp_path_factory):
    """A checkpoint whose levels all do something: untrained weights, shaken."""
    directory = tmp_path_factory.mktemp("hierarchy")
    assert train(compose.compose("train", [*SETTINGS, "epochs=0", "report=false", "device=cpu"]), directory) == 0
    loaded = vae_cli.load(directory, "cpu")
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    loaded.save(directory / "shaken.safetensors")
    return directory / "shaken.safetensors"


@pytest.fixture(scope="module")
def flat(tmp_path_factory):
    return run_of(tmp_path_factory, "epochs=0")


@pytest.fixture
def loaded(hierarchy):
    return vae_cli.load(hierarchy)


def levels(z):
    return torch.as_tensor(z).split(SIZES, dim=-1)


def images_of(run, output, *settings):
    with np.load(reconstructed(run, output, "format=npz", "limit=5", *settings)) as archive:
        return archive["images"]


# vae-sample


def test_a_list_of_temperatures_has_one_for_each_level_from_z1_on(hierarchy, loaded, tmp_path):
    plain = drawn(hierarchy, tmp_path, "n=9")["images"]
    np.testing.assert_array_equal(drawn(hierarchy, tmp_path, "n=9", "temperature=[1,1,1]")["images"], plain)
    cold_top = drawn(hierarchy, tmp_path, "n=9", "temperature=[0,0,1]")["images"]
    assert not np.array_equal(cold_top, plain)
    np.testing.assert_array_equal(loaded.sample(9, temperature=[0, 0, 1]).numpy(), cold_top)
    np.testing.assert_array_equal(loaded.sample(9, temperature=np.array([0.0, 0, 1])).numpy(), cold_top)
    close(drawn(hierarchy, tmp_path, "n=2", "temperature=[0,0,0]")["images"][:1], loaded.image(mean_path(loaded.model)))


def mean_path(model):
    with torch.no_grad():
        return model.complete(torch.zeros(1, model.latent_dim), 0)[0]


def test_a_row_of_mode_levels_keeps_the_top_levels_of_one_draw_and_draws_the_others_anew(hierarchy, loaded, tmp_path):
    archive = drawn(hierarchy, tmp_path, "mode=levels", "steps=6", "seed=4")
    z = archive["z"].reshape(3, 6, 9)
    for kept, row in enumerate(z):
        for number, part in enumerate(levels(row)):
            if number >= 3 - kept:
                assert (part == part[0]).all() and torch.equal(part[0], levels(z[0, 0])[number])
            else:
                assert len(part.unique(dim=0)) == 6
    first = drawn(hierarchy, tmp_path, "n=6", "seed=4")["images"]
    np.testing.assert_allclose(archive["images"][:6], first, atol=1e-5)
    np.testing.assert_allclose(archive["images"][[0, 6, 12]], first[[0, 0, 0]], atol=1e-5)
    close(archive["images"], loaded.image(archive["z"]))
    around = drawn(hierarchy, tmp_path, "mode=levels", "steps=4", "around=7")["z"].reshape(3, 4, 9)
    code = encoded(hierarchy, tmp_path, "limit=8")["mean"][7]
    np.testing.assert_allclose(around[:, 0], np.stack([code] * 3), atol=1e-5)
    np.testing.assert_allclose(around[2, :, 4:], np.stack([code[4:]] * 4), atol=1e-5)


@pytest.mark.parametrize("level", ["z2", "2"])
def test_an_interpolation_of_one_level_moves_it_alone_and_the_levels_below_follow(level, hierarchy, loaded, tmp_path):
    archive = drawn(hierarchy, tmp_path, "mode=interpolate", "between=[3,17]", f"level={level}", "steps=5")
    first, second = (torch.from_numpy(code) for code in encoded(hierarchy, tmp_path, "limit=18")["mean"][[3, 17]])
    below, moved, above = levels(archive["z"])
    close(above, levels(first)[2].expand(5, -1))
    close(moved, torch.stack([torch.lerp(levels(first)[1], levels(second)[1], t) for t in (0, 0.25, 0.5, 0.75, 1)]))
    close(torch.cat([below, moved, above], -1), loaded.model.complete(torch.from_numpy(archive["z"]), 2))
    pairs = drawn(hierarchy, tmp_path, "mode=interpolate", "n=2", f"level={level}", "steps=3")
    assert pairs["z"].shape == (6, 9)


def test_below_a_traversed_dimension_the_levels_follow_and_deviations_are_those_given_the_levels_above(
    hierarchy, loaded, tmp_path
):
    model, code = loaded.model, torch.from_numpy(encoded(hierarchy, tmp_path, "limit=10")["mean"][9])
    z = drawn(hierarchy, tmp_path, "mode=traverse", "around=9", "steps=3", "level=z2")["z"].reshape(3, 3, 9)
    with torch.no_grad():
        _, scale = walks.prior_moments(model, around=code)
    moved = set()
    for row in torch.from_numpy(z):
        close(row, model.complete(row, 2))
        close(row[:, 7:], code[7:].expand(3, -1))
        (dimension,) = ((row[2] - row[0])[4:7].abs() > 1e-6).nonzero().flatten().tolist()
        close(row[2, 4 + dimension], code[4 + dimension] + 3 * scale[4 + dimension])
        moved.add(dimension)
    assert moved == {0, 1, 2}
    everything = drawn(hierarchy, tmp_path, "mode=traverse", "steps=3")["z"].reshape(9, 3, 9)
    close(everything[:, 1], mean_path(model).expand(9, -1))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["temperature=[1,1]"], "this model has 3 levels of latent variables; give one number, or a list with one for"),
        (["temperature=[1,-1,1]"], "temperature accepts a number of at least 0, or of a hierarchy a list"),
        (["mode=manifold"], "mode=manifold shows one latent plane, and model=ladder is a hierarchy; use mode=levels"),
        (["sampler=gmm"], "and model=ladder is a hierarchy; use sampler=aggregate"),
        (["mode=interpolate", "level=z4"], "level=z4: this model's levels are z1 (nearest to the data) to z3"),
        (["mode=interpolate", "level=0"], "level accepts null or a level of a hierarchy by its name or number"),
        (["mode=interpolate", "path=slerp"], "path=slerp turns one latent vector about the prior's mean, not levels"),
        (["mode=interpolate", "path=slerp", "level=z3"], "not levels; use path=linear"),
        (["level=z2"], "mode=prior takes no level; it goes with mode=interpolate or traverse"),
        (["mode=levels", "n=3"], "mode=levels takes no n"),
        (["mode=levels", "sampler=aggregate"], "mode=levels takes no sampler"),
        (["z=[1,2]"], "the model's latent space 9 dimension(s)"),
    ],
)
def test_what_a_hierarchy_cannot_do_is_refused(settings, words, hierarchy, tmp_path):
    with pytest.raises(ConfigError) as caught:
        drawn(hierarchy, tmp_path, *settings)
    assert words in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "settings", [["mode=levels"], ["mode=interpolate", "level=z1"], ["mode=traverse", "level=1"], ["temperature=[1,1]"]]
)
def test_what_is_of_levels_is_refused_for_a_model_of_one(settings, flat, tmp_path):
    with pytest.raises(ConfigError, match="this model has (one|1) level of latent variables"):
        drawn(flat, tmp_path, *settings)


def test_one_vector_is_decoded_and_training_codes_are_sampled(hierarchy, loaded, tmp_path):
    z = [0.5, -1, 0, 1, 0.25, 0.5, -0.5, 1, 2]
    close(drawn(hierarchy, tmp_path, f"z={z}")["images"][0], loaded.image(z)[0])
    assert drawn(hierarchy, tmp_path, "sampler=aggregate", "n=3")["images"].shape == (3, 1, 8, 8)


# vae-encode, vae-reconstruct and Python


def test_a_code_of_a_hierarchy_has_its_levels_besides(hierarchy, flat, tmp_path):
    codes = encoded(hierarchy, tmp_path, "limit=6")
    for name in ("mean", "std", "sample"):
        parts = [codes[f"z{number}_{name}"] for number in (1, 2, 3)]
        assert [part.shape for part in parts] == [(6, 4), (6, 3), (6, 2)]
        np.testing.assert_array_equal(np.concatenate(parts, axis=1), codes[name])
    assert set(encoded(flat, tmp_path, "limit=6")) == {"mean", "std", "sample", "label"}


def test_a_reconstruction_from_the_top_levels_has_the_others_from_the_prior(hierarchy, loaded, tmp_path):
    plain, codes = images_of(hierarchy, tmp_path / "r.npz"), encoded(hierarchy, tmp_path, "limit=5")
    np.testing.assert_array_equal(images_of(hierarchy, tmp_path / "r.npz", "levels=3"), plain)
    for kept in (1, 2):
        z = loaded.model.complete(torch.from_numpy(codes["mean"]), kept)
        close(images_of(hierarchy, tmp_path / "r.npz", f"levels={kept}"), loaded.image(z.detach()))
    draw = images_of(hierarchy, tmp_path / "r.npz", "levels=1", "draw=true")
    assert np.array_equal(draw, images_of(hierarchy, tmp_path / "r.npz", "levels=1", "draw=true"))
    assert not np.array_equal(draw, images_of(hierarchy, tmp_path / "r.npz", "levels=1", "draw=true", "seed=1"))
    whole = images_of(hierarchy, tmp_path / "r.npz", "draw=true")
    np.testing.assert_array_equal(images_of(hierarchy, tmp_path / "r.npz", "levels=3", "draw=true"), whole)


def test_a_number_of_levels_that_a_model_does_not_have_is_refused(hierarchy, flat, loaded, tmp_path):
    with pytest.raises(ConfigError, match="levels=4: this model has 3, z1 to z3; give 1 to 3"):
        reconstructed(hierarchy, tmp_path / "r.png", "levels=4")
    with pytest.raises(ConfigError, match="levels=1: this model has one level"):
        reconstructed(flat, tmp_path / "r.png", "levels=1")
    with pytest.raises(ConfigError, match="levels accepts null or an integer of at least 1"):
        loaded.reconstruct(np.zeros((8, 8), bool), levels=0)
    assert not list(tmp_path.iterdir())


def test_vectors_of_another_width_or_count_are_refused_and_draws_are_the_posteriors(loaded):
    q = loaded.encode(torch.rand(5, *loaded.data.shape))
    for use in (q.log_prob, q.rsample_and_log_prob):
        for shape in ((5, 8), (4, 9), (9, 5), ()):
            with pytest.raises(DataError, match=r"of 5 examples give \(…, 5, 9\)"):
                use(torch.zeros(shape))
    with pytest.raises(DataError, match=r"z has the shape \(5, 8\); give vectors \(…, 9\)"):
        loaded.levels(torch.zeros(5, 8))
    torch.manual_seed(0)
    z = q.rsample((4000,))
    top = loaded.levels(z)["z3"]
    assert z.shape == (4000, 5, 9) and q.rsample().shape == (5, 9)
    assert torch.allclose(top.mean(0), q.mean[:, -2:], atol=0.1)
    assert torch.allclose(top.std(0), q.stddev[:, -2:], rtol=0.1)


def test_python_gives_the_codes_and_reconstructions_of_the_commands_bit_for_bit(hierarchy, loaded, tmp_path):
    codes = encoded(hierarchy, tmp_path, "input=train", "limit=607")
    with np.load(
        reconstructed(hierarchy, tmp_path / "r.npz", "format=npz", "input=train", "limit=607", "levels=2")
    ) as r:
        images = r["images"]
    x = split_of(loaded, "train")[:607].bool()
    q = loaded.encode(x)
    for key, value in loaded.levels(q.mean).items():
        np.testing.assert_array_equal(value.numpy(), codes[f"{key}_mean"])
    np.testing.assert_array_equal(q.stddev.numpy(), codes["std"])
    np.testing.assert_array_equal(loaded.reconstruct(x, levels=2).numpy(), images)
    assert not q.mean.requires_grad and not q.log_prob(q.mean).requires_grad
    assert loaded.encode(x[:3], grad=True).mean.requires_grad
    noise = torch.randn(4, 607, 9)
    z, log_q = q.rsample_and_log_prob(noise)
    torch.testing.assert_close(q.log_prob(z), log_q)
    torch.testing.assert_close(q.log_prob_by_level(z).sum(0), log_q)


def split_of(loaded, name):
    return getattr(load_data(loaded._loaded, compose.compose("encode", [])), name).images


# vae-evaluate


@pytest.fixture(scope="module")
def evaluated(hierarchy, tmp_path_factory):
    output = tmp_path_factory.mktemp("evaluated") / "numbers.json"
    settings = [f"checkpoint={hierarchy}", f"output={output}", "num_importance_samples=60", "limit=40"]
    evaluate.run(compose.compose("evaluate", settings))
    return json.loads(output.read_text())


def test_an_evaluation_has_the_kl_and_the_active_units_of_each_level(evaluated, loaded):
    levels, x = evaluated["levels"], split_of(loaded, "test")[:40].float()
    drawn = torch.cat([noise.by_image(40, 50, 9, 0, "log_likelihood", seen) for seen in (0, 50)])[:60]
    with torch.no_grad():
        evidence = loaded.model.evidence(x, drawn)
    assert list(levels) == ["z1", "z2", "z3"]
    for level, size in zip(evidence.levels, SIZES):
        kl, stated = level.analytic_kl().double(), levels[level.name]
        assert stated["latent_dim"] == size and stated["kl"]["n"] == 40
        assert stated["kl"]["value"] == pytest.approx(float(kl.mean()), rel=1e-4)
        assert stated["kl"]["stderr"] == pytest.approx(float(kl.std()) / 40**0.5, rel=1e-3)
        assert 0 <= stated["active_units"]["value"] <= size
    assert evaluated["kl"]["value"] == pytest.approx(sum(level["kl"]["value"] for level in levels.values()))
    reconstruction = float(evidence.log_p_x_given_z.double().mean())
    assert evaluated["elbo"]["value"] == pytest.approx(reconstruction - evaluated["kl"]["value"], rel=1e-4)
    assert evaluated["active_units"]["value"] == sum(level["active_units"]["value"] for level in levels.values())
    log_w = (evidence.log_p_x_given_z + evidence.log_p_z - evidence.log_q_z_given_x).double()
    expected = float((log_w.logsumexp(0) - math.log(60)).mean())
    assert evaluated["log_likelihood"]["value"] == pytest.approx(expected, rel=1e-5)


def test_what_is_of_one_latent_vector_is_left_out_and_the_table_has_the_levels(evaluated):
    left_out = {"mmd", "index_code_mi", "kl_per_dim", "knn_accuracy", "linear_probe_accuracy"}
    assert not left_out & evaluated.keys()
    lines = tables.table(evaluated).splitlines()
    (first,) = [line for line in lines if line.split()[:1] == ["z1"]]
    assert "of 4 units active" in first and f"{evaluated['levels']['z1']['kl']['value']:.4f}" in first


def test_log_likelihoods_and_bounds_in_python_are_those_of_the_evaluation(evaluated, loaded):
    x = split_of(loaded, "test")[:40].bool()
    nats = loaded.log_likelihood(x, num_importance_samples=60).mean()
    assert float(nats) == evaluated["log_likelihood"]["value"]
    assert float(loaded.elbo(x, mc_samples=60).mean()) == evaluated["elbo"]["value"]
