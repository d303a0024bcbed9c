"""Small trainings and their files."""

import json

import pytest

from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.evaluation.bounds import evaluate
from vae_cli.runs import checkpoint
from vae_cli.training.run import run as train

SMALL = ["report=false", "epochs=2", "batch_size=128", "latent_dim=3", "sample_every=1", "device=cpu"]
NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]"]


def settings(*overrides):
    narrow = [] if any(o.startswith("encoder=") for o in overrides) else NARROW
    return compose.compose("train", [*SMALL, *narrow, *overrides])


def keys_of(overrides):
    return frozenset(o.partition("=")[0].lstrip("+") for o in overrides)


def trained(directory, *overrides):
    assert train(settings(*overrides), directory, keys_of(overrides)) == 0
    assert "could not be written" not in (directory / "train.log").read_text()
    return json.loads((directory / "summary.json").read_text())


def lines(directory, split=None):
    records = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [line for line in records if split in (None, line["split"])]


def elbo_on_test(contents, weights):
    facts = DataFacts.of(contents["data"])
    model = parts.model(contents["config"], facts, trusted=())
    model.load_state_dict(weights)
    data = parts.dataset(contents["config"]).splits()
    return evaluate(model, parts.objective(contents["config"], model, facts, 1), data.test, seed=0)["elbo"]


def weights_of(directory, name="last"):
    return checkpoint.load(directory / "checkpoints" / f"{name}.safetensors")["model"]


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run")
    trained(directory)
    return directory
