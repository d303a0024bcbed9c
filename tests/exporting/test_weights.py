"""One safetensors file: the same model without optimizer or paths."""

import json

import pytest
from safetensors import safe_open

from tests.support.training import digits_run  # noqa: F401
from vae_cli.build import trained
from vae_cli.exporting import weights


@pytest.mark.parametrize("name", ["best", "last"])
def test_a_file_holds_weights_and_settings_alone(digits_run, tmp_path, name):  # noqa: F811
    source = digits_run / "checkpoints" / f"{name}.safetensors"
    weights.write(source, tmp_path / "model.safetensors")
    own, written = (trained.load(path, "cpu") for path in (source, tmp_path / "model.safetensors"))
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(own.model.state_dict())
        config = json.loads(file.metadata()["config"])
    assert config["data_dir"] is None and config["latent_dim"] == own.settings["latent_dim"]
    for key, value in own.model.state_dict().items():
        assert (written.model.state_dict()[key] == value).all()
    assert (tmp_path / "model.safetensors").read_bytes().find(str(digits_run).encode()) < 0


def test_every_path_of_a_config_goes_and_the_rest_stays():
    config = {
        "data_dir": "data",
        "resume": "runs/a",
        "dataset": {
            "_target_": "mine.Data",
            "path": "photos",
            "cache": "c",
            "where": "/home/me/x",
            "files": ["~/a", "b"],
        },
        "encoder": {"hidden": [400], "activation": "relu"},
        "seed": 0,
    }
    assert weights.shareable(config) == {
        "data_dir": None,
        "resume": None,
        "dataset": {"_target_": "mine.Data", "path": None, "cache": None, "where": None, "files": [None, "b"]},
        "encoder": {"hidden": [400], "activation": "relu"},
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("address", "shared"),
    [
        ("file:///home/me/runs", None),
        ("FILE:/home/me/runs", None),
        ("sqlite:////home/me/runs.db", None),
        ("http://me:secret@host:5000/x", "http://***@host:5000/x"),
        ("http://me:sec/ret@host/x", "http://***@host/x"),
        ("redis://:secret@host", "redis://***@host"),
        ("https://TOKEN@host/x@2", "https://***@host/x@2"),
        ("https://host/x@2", "https://host/x@2"),
        ("file:./mlruns", "file:./mlruns"),
    ],
)
def test_addresses_of_files_go_and_credentials_are_hidden(address, shared):
    assert weights.shareable({"dataset": {"mirrors": [address]}}) == {"dataset": {"mirrors": [shared]}}


def test_nothing_of_a_logger_is_shared():
    logger = {"_target_": "mine.Logger", "uri": "https://TOKEN@host", "key": "TOKEN", "headers": ["TOKEN"]}
    shared = weights.shareable({"seed": 0, "logger": logger})
    assert shared == {"seed": 0, "logger": {"_target_": "vae_cli.loggers.NoLogger"}}
