"""Train, score and sample variational autoencoders from a shell, or from Python: `load` and `train`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vae_cli.api import load as load
    from vae_cli.api import train as train

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]


def __getattr__(name: str) -> Any:
    """Import what Python code uses when it is asked for: a console script answers --help without torch."""
    if name in __all__:
        from vae_cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
