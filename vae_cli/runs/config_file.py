"""The config of a run as it is stored."""

import re
from typing import Any

_INTERPOLATION = re.compile(r"(\\*)\$\{")


def to_yaml(config: dict[str, Any]) -> str:
    """Return a plain config as YAML that Hydra and OmegaConf read back as it is, a literal `${` included."""

    def escaped(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: escaped(inside) for key, inside in value.items()}
        if isinstance(value, list):
            return [escaped(inside) for inside in value]
        return escape(value) if isinstance(value, str) else value

    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(escaped(config)))


def with_later_keys(config: dict[str, Any]) -> dict[str, Any]:
    """Return a stored config with the keys that older runs do not have, at the values that all of them had."""
    return {"model": {"_target_": "vae_cli.models.VAE"}, "skip_grad_norm": None} | config


def escape(value: str, pattern: re.Pattern[str] = _INTERPOLATION) -> str:
    """Return a text that OmegaConf resolves to the given one, without interpolating."""
    return pattern.sub(lambda match: match[1] * 2 + r"\${", value)
