"""The libraries that export: the line about one that is not installed, and silence where one talks."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from io import StringIO

from vae_cli.errors import ConfigError, describe


def missing(setting: str, error: ImportError, extra: str) -> ConfigError:
    """Return the error about a setting that needs an extra of this package."""
    name = error.name or describe(error)
    return ConfigError(f"{setting} needs {name}, which is not installed: pip install 'vae-cli[{extra}]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep a library's progress and advice from the terminal."""
    disabled = logging.root.manager.disable
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            yield
        finally:
            logging.disable(disabled)
