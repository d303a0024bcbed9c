"""The keys that a config has, its top-level values, and the answer to an unknown key."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from vae_cli.build import options
from vae_cli.build.settings import check_values
from vae_cli.constraints import show
from vae_cli.errors import ConfigError


def check(config: Mapping[str, Any], command: str = "train") -> None:
    """Check that a plain config has the keys of its command, and every value at its top level.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    check_keys(config, command)
    check_values(config, command)


def check_keys(config: Mapping[str, Any], command: str) -> None:
    """Check that the top-level keys are a command's own, all of them and no other.

    Raises:
        ConfigError: naming the first key that is missing or unknown.
    """
    groups = options.groups(command)
    allowed = [*(key.name for key in options.keys(command)), *groups]
    for key in config:
        if key not in allowed:
            nodes = {group: node for group, node in config.items() if isinstance(node, dict)}
            nested = [f"{group}.{inside}" for group, node in nodes.items() for inside in node if inside != "_target_"]
            raise ConfigError(unknown(str(key), [*allowed, *nested]))
    for key in options.needed(command):
        if key not in config and key not in options.OF_FLAT_MODELS:
            raise ConfigError(f"{key} is missing: vae-{command} needs it, leave it in")
    for group, default in groups.items():
        if group in config:
            _check_group(group, config[group], default)


def _check_group(group: str, node: Any, default: str) -> None:
    """Check that an option file has left a group's node as it should be: with a class, or without any of a preset."""
    if not isinstance(node, dict):
        if node in options.options(group):
            raise ConfigError(
                f"{group}: {node}: a file chooses it in its defaults list, as - override /{group}: {node}"
            )
        raise ConfigError(f"{group}={show(node)}: {group} accepts one of {', '.join(options.general_options(group))}")
    if default == "null":
        key = f"{group}.{next(iter(node))}" if node else group
        raise ConfigError(
            f"{key}: the option file of {group}= leaves its keys under {group}; "
            "begin it with the line # @package _global_"
        )
    if "_target_" not in node:
        what = f"has its keys under {group}: write them at its root" if group in node else "has no class: add _target_"
        raise ConfigError(f"{group}: its option file {what}, as in _target_: my_package.MyClass")


def unknown(key: str, known_keys: Iterable[str]) -> str:
    """Return the sentence about an unknown key, with the nearest known ones."""
    if key == "sweep":
        return "sweep=DIR is where a sweep goes: add -m and comma-separated values, such as latent_dim=2,8"
    is_special = key.rpartition(".")[2].startswith("_")
    near = nearest(key, [each for each in known_keys if is_special or not each.endswith("_target_")])
    return f"unknown key {key}: " + (f"did you mean {' or '.join(near)}?" if near else "--help keys lists them")


def nearest(name: str, known_keys: list[str]) -> list[str]:
    """Return the known keys closest to one that is not: those with the same last part, else the nearest spelling."""
    last_part = name.rpartition(".")[2]
    same = [key for key in known_keys if key.rpartition(".")[2] == last_part]
    spelled = get_close_matches(name, same or known_keys, n=1)
    if same:
        return spelled if spelled and "." in name else same
    close = get_close_matches(last_part, {key.rpartition(".")[2] for key in known_keys}, n=1)
    return spelled or [key for key in known_keys if key.rpartition(".")[2] in close]
