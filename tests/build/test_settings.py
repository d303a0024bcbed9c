"""Top-level values: a rule for every key; intervals and sizes."""

import pytest

from vae_cli.build import options, settings
from vae_cli.errors import ConfigError


@pytest.mark.parametrize(
    ("value", "parsed"),
    [
        (1, (1, None)),
        (7, (7, None)),
        ("10min", (None, 600.0)),
        ("30 s", (None, 30.0)),
        ("1.5h", (None, 5400.0)),
    ],
)
def test_an_interval_is_epochs_or_seconds(value, parsed):
    assert settings.parse_interval(value) == parsed


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "", "10", "min", "-3min", "0s"])
def test_no_other_interval_is_taken(value):
    with pytest.raises(ConfigError, match="checkpoint_every"):
        settings.parse_interval(value)


def test_every_key_of_the_package_has_a_rule():
    for command in ("train", "sample"):
        for key in options.keys(command):
            assert key.name in settings.RULES or key.default.startswith("{")  # a key of a group


@pytest.mark.parametrize(("text", "size"), [("500MB", 5e8), ("2 GB", 2e9), ("1.5TB", 1.5e12)])
def test_a_size_is_bytes(text, size):
    assert settings.parse_bytes(text) == size


@pytest.mark.parametrize("text", ["0MB", "2", "GB", "-1GB", "0.0 GB"])
def test_no_other_size_is_taken(text):
    with pytest.raises(ConfigError, match="memory accepts auto or a size such as"):
        settings.parse_bytes(text)
