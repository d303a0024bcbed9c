"""Presets: composed, free to be combined, and what their sources say."""

import itertools
import json
import os
import subprocess
import sys
from functools import cache

import pytest

from vae_cli.build import options, parts, registry
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError

PRESETS = options.options("experiment")
GROUPS = [group for group, default in options.groups("train").items() if default != "null"]
OTHERS = list(itertools.product(PRESETS, GROUPS))


@cache
def defaults():
    return compose.compose("train")


def replaced(preset, group, option):
    path = ["dataset.path=x"] if option in ("folder", "arrays") and group == "dataset" else []
    composed = compose.compose("train", [f"experiment={preset}", f"{group}={option}", *path])
    if group in options.OF_FLAT_MODELS and composed["model"]["_target_"] != options.option("model", "vae")["_target_"]:
        with pytest.raises(ConfigError, match=f"^{group}: model=.* in place of latent_dim, encoder, decoder"):
            registry.check_groups(composed, [group])
        return
    checked, dropped = registry.check_groups(composed, [group])
    assert checked[group]["_target_"] == options.option(group, option)["_target_"]
    is_flat = registry.resolve("model", checked["model"]["_target_"]).is_flat
    # What the preset sets of a flat model has no place in a hierarchy, and is named.
    changed = {key for key in options.OF_FLAT_MODELS if not is_flat and composed[key] != defaults()[key]}
    assert {key.partition(".")[0] for key in dropped} == changed and not changed & {*checked}


@pytest.mark.parametrize("number", range(0, len(OTHERS), 3), ids=lambda n: "-".join(OTHERS[n]))
def test_another_option_can_replace_a_presets_choice(number):
    preset, group = OTHERS[number]
    names = options.options(group)
    replaced(preset, group, names[number % len(names)])


@pytest.mark.slow
@pytest.mark.parametrize(("preset", "group"), OTHERS)
def test_every_option_can_replace_a_presets_choice(preset, group):
    for option in options.options(group):
        replaced(preset, group, option)


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_says_where_it_comes_from_and_builds_its_model(preset):
    text = (options.conf_dir() / "experiment" / f"{preset}.yaml").read_text()
    assert preset == "mnist_conv" or ("differs" in text.lower() and " 20" in text)
    composed = compose.compose("train", [f"experiment={preset}"])
    support = "binary" if composed["dataset"]["binarize"] == "dynamic" or "static" in preset else "levels256"
    facts = DataFacts("mnist", (1, 28, 28), support, 10, 60_000)
    composed = parts.with_choices(composed, facts)
    model = parts.model(composed, facts)
    parts.objective(composed, model, facts, 100)


def test_the_iwae_papers_rate_is_its_schedule():
    """10^(−i/7) for the i-th 3^i of 3,280 epochs."""
    composed = compose.compose("train", ["experiment=burda_vae"])
    schedule = parts.schedule(composed, steps_per_epoch=10)
    expected = [10 ** (-i / 7) for i in range(8) for _ in range(3**i)]
    assert len(expected) == composed["epochs"]
    factors = [schedule(10 * epoch + 5) for epoch in range(3280)]
    assert factors == pytest.approx(expected, rel=1e-6)


def test_the_iwae_papers_model_has_its_layers():
    composed = compose.compose("train", ["experiment=burda_iwae"])
    facts = DataFacts("mnist", (1, 28, 28), "binary", 10, 60_000)
    model = parts.model(parts.with_choices(composed, facts), facts)
    sizes = [tuple(p.shape) for name, p in model.named_parameters() if name.endswith("weight")]
    assert sizes == [(200, 784), (200, 200), (100, 200), (200, 50), (200, 200), (784, 200)]
    assert composed["mc_samples"] == 50 and composed["batch_size"] == 20


needs_mnist = pytest.mark.skipif("VAE_DATA_DIR" not in os.environ, reason="VAE_DATA_DIR names no directory with MNIST")


@pytest.mark.slow
@needs_mnist
@pytest.mark.parametrize("posterior", ["full_normal", "diagonal_normal"])
@pytest.mark.parametrize(("q", "best"), [(2, 14.360079), (10, 186.024072)])
def test_ppca_comes_within_half_a_nat_of_the_maximum_likelihood(q, best, posterior, tmp_path):
    call = [sys.executable, "-m", "vae_cli", "train", "experiment=ppca", f"latent_dim={q}", f"posterior={posterior}"]
    done = subprocess.run([*call, "hydra.run.dir=run"], cwd=tmp_path, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0, done.stderr
    elbo = json.loads((tmp_path / "run" / "summary.json").read_text())["test"]["elbo"]
    assert best - 0.5 < elbo < best + 0.1
