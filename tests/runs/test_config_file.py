"""config.yaml says what the config says."""

from omegaconf import OmegaConf

from vae_cli.config import compose
from vae_cli.runs.config_file import to_yaml


def test_yaml_comes_back_as_it_was():
    plain = {"a": "${x", "b": ["\\${y}", "z"], "c": {"d": None, "e": 1e-8, "f": True}, "g": "1e-3"}
    assert compose.to_plain(OmegaConf.create(to_yaml(plain))) == plain
