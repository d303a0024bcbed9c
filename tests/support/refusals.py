"""Command lines that are refused."""

import pytest

from vae_cli.config import compose
from vae_cli.errors import ConfigError


def refusal(*argv, command="train"):
    """Return the one line with which a command line is refused."""
    with pytest.raises(ConfigError) as caught:
        compose.compose(command, argv)
    assert "\n" not in str(caught.value)
    return str(caught.value)
