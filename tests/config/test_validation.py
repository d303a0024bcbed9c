"""Top-level keys: which there are, and what each accepts."""

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from tests.support.refusals import refusal
from vae_cli.config import compose, validation
from vae_cli.errors import ConfigError

WRONG = {
    "latent_dim": "0 -3 abc 2.5 EMPTY true null nan [2]",
    "mc_samples": "0 1.5",
    "batch_size": "0 x",
    "epochs": "-1 1.5",
    "seed": "-1 9223372036854775808 0.5",
    "device": "banana 3 cuda: null",
    "precision": "float16 16",
    "compile": "1 yes",
    "init_output_bias": "null",
    "clip_grad_norm": "0 -1 inf x",
    "skip_grad_norm": "0 -1 x",
    "ema_decay": "1 -0.1 nan",
    "early_stopping": "0 true",
    "checkpoint_every": "0 10parsecs 0min 1.5",
    "sample_every": "-1",
    "log_every": "0",
    "data_dir": "EMPTY",
    "resume": "EMPTY",
    "allow": "EMPTY 3",
}


RIGHT = {
    "latent_dim": "1 1_000",
    "epochs": "0",
    "seed": "9223372036854775807",
    "device": "cuda:1 mps",
    "precision": "bfloat16",
    "compile": "true",
    "clip_grad_norm": "1",
    "ema_decay": "0",
    "early_stopping": "3",
    "checkpoint_every": "10min 2h",
    "sample_every": "0",
}


def settings_of(table):
    return [(key, "" if value == "EMPTY" else value) for key in table for value in table[key].split()]


@pytest.fixture(scope="module")
def defaults():
    return compose.compose("train")


def checked(defaults, key, text):
    """Check a config of one setting, read as the command line would read it."""
    value = OverridesParser.create().parse_override(f"{key}={text}").value()
    settings = OmegaConf.create(defaults)
    OmegaConf.update(settings, key, value, force_add=True)
    validation.check(compose.to_plain(settings))


@pytest.mark.parametrize(("key", "text"), settings_of(WRONG))
def test_a_wrong_value_is_named_with_what_is_accepted(key, text, defaults):
    with pytest.raises(ConfigError) as caught:
        checked(defaults, key, text)
    assert str(caught.value).startswith(f"{key}=")
    assert f"{key} accepts" in str(caught.value)


@pytest.mark.parametrize(("key", "text"), settings_of(RIGHT))
def test_a_right_value_passes(key, text, defaults):
    checked(defaults, key, text)


@pytest.mark.parametrize(
    "setting",
    [
        "n=0",
        "n=1.5",
        "temperature=-1",
        "temperature=nan",
        "draw=1",
        "format=jpg",
        "output=",
        "seed=-1",
        "device=x",
    ],
)
def test_settings_of_sample_are_checked(setting):
    assert refusal("checkpoint=x", setting, command="sample").startswith(setting.partition("=")[0])
