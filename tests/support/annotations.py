"""Checks of a constructor's annotations."""

from typing import get_type_hints

from vae_cli.constraints import accepts


def takes(cls, key, value):
    """Return whether a class's annotation of a constructor argument accepts a value."""
    return accepts(get_type_hints(cls.__init__, include_extras=True)[key], value)
