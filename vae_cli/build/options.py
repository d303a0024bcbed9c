"""The contents of the files of `conf/`: commands, keys, groups and their options."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from vae_cli.constraints import show
from vae_cli.errors import ConfigError

_KEY = re.compile(r"^(?!hydra:)(?P<name>[a-z]\w*): +(?P<default>\S.*?)(?: +# *(?P<comment>.*))?$", re.MULTILINE)
_GROUP = re.compile(r"^  - (?:optional )?(?P<name>\w+): (?P<default>\w+)", re.MULTILINE)
_INCLUDED = re.compile(r"^  - (?P<name>[a-z]\w*)$", re.MULTILINE)


# What only a model of one level takes: a hierarchy has sizes, networks and posteriors of its own.
OF_FLAT_MODELS = ("latent_dim", "encoder", "decoder", "posterior")
PLAIN_WARM_UP = {"beta_schedule": "linear", "warmup_epochs": 0}  # what `auto` is for a model of one level
COMMANDS = ("train", "sample", "evaluate", "reconstruct", "encode", "compare", "export", "explore")


@dataclass(frozen=True)
class Key:
    """A key of a YAML file with its default, both as they are written, and the comment beside it."""

    name: str
    default: str
    comment: str


def conf_dir() -> Path:
    """Return the folder of the YAML files: inside the installed package, else beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    installed = package / "conf"
    return installed if (installed / "train.yaml").is_file() else package.parent / "conf"


def keys(file: str) -> list[Key]:
    """Return the top-level keys of `conf/<file>.yaml` without `_target_`, those of included files among them."""
    text = _text(file)
    own = [Key(m["name"], m["default"], m["comment"] or "") for m in _KEY.finditer(text)]
    included = [m["name"] for m in _INCLUDED.finditer(text) if (conf_dir() / f"{m['name']}.yaml").is_file()]
    return own + [key for each in included for key in keys(each)]


def groups(command: str) -> dict[str, str]:
    """Return the groups of a command's defaults list and the option that each starts with."""
    return {m["name"]: m["default"] for m in _GROUP.finditer(_text(command))}


def options(group: str) -> list[str]:
    """Return the names of a group's option files."""
    return sorted(path.stem for path in (conf_dir() / group).glob("*.yaml"))


def general_options(group: str) -> list[str]:
    """Return the options of a group without those whose first line says "for experiment=": they serve presets."""
    return [name for name in options(group) if not first_comment(f"{group}/{name}").startswith("for experiment=")]


def first_comment(file: str) -> str:
    """Return the comment at the top of `conf/<file>.yaml`, a preset's below its package."""
    lines = [line for line in _text(file).splitlines() if not line.startswith("# @package")]
    return lines[0].removeprefix("# ") if lines[0].startswith("# ") else ""


def needed(command: str) -> list[str]:
    """Return the top-level keys and groups that the config of one run of a command always has."""
    own = [key.name for key in keys(command) if key.name not in sweep_keys()]
    return own + [g for g, name in groups(command).items() if name != "null"]


@cache
def sweep_keys() -> frozenset[str]:
    """Return the keys of a sweep as a whole, which no run of it has."""
    return frozenset(key.name for key in keys("sweep"))


def every_key() -> set[str]:
    """Return the top-level keys and groups of all commands."""
    return {key for command in COMMANDS for key in [*needed(command), *(key.name for key in keys(command))]}


def _text(file: str) -> str:
    return (conf_dir() / f"{file}.yaml").read_text(encoding="utf-8")


def option(group: str, name: str) -> dict[str, Any]:
    """Return one option file of `conf/` as plain data.

    Raises:
        ConfigError: if there is none of that name.
    """
    if name not in options(group):
        raise ConfigError(f"{group}={name}: {group} is one of {', '.join(general_options(group))}")
    return dict(_option_files(group)[name])


@cache
def _option_files(group: str) -> dict[str, dict[str, Any]]:
    from omegaconf import OmegaConf  # for which, unlike PyYAML, 1e-3 is a number

    loaded = {
        name: OmegaConf.to_container(OmegaConf.load(conf_dir() / group / f"{name}.yaml")) for name in options(group)
    }
    return {
        name: {str(key): value for key, value in node.items()}
        for name, node in loaded.items()
        if isinstance(node, dict)
    }


def choice(group: str, node: Mapping[str, Any]) -> str:
    """Return the name of the option that a group's settings come from; for a class without one, the class's path.

    Of several options with the class it is the one that differs in the fewest keys, and one for presets only where no
    other has the class: it is hidden from --help.
    """
    target, general = str(node["_target_"]), general_options(group)

    def distance(name: str) -> tuple[bool, int, bool]:
        is_alike = name.replace("_", "") in target.lower()
        return name not in general, len(_differing(group, name, node)), not is_alike

    names = [name for name, settings in _option_files(group).items() if settings.get("_target_") == target]
    return min(names, key=distance, default=target)


def _differing(group: str, name: str, node: Mapping[str, Any]) -> list[str]:
    """Return the keys of a group's settings, or of an option's file, that have another value in the other."""
    file = _option_files(group).get(name, {})

    def value(settings: Mapping[str, Any], key: str) -> Any:
        return PLAIN_WARM_UP.get(key, "auto") if settings[key] == "auto" else settings[key]

    keys = [key for key in [*node, *(key for key in file if key not in node)] if key != "_target_"]
    return [key for key in keys if key not in file or key not in node or value(node, key) != value(file, key)]


def changes(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what differs from the defaults in the config of a training: keys and groups with their values."""
    changed: dict[str, Any] = {
        key.name: config[key.name]
        for key in keys("train")
        if key.name in config and not key.default.startswith("${") and show(config[key.name]) != key.default
    }
    for group, default in groups("train").items():
        if isinstance(node := config.get(group), Mapping):
            name = choice(group, node)
            changed |= {group: name} if name != default else {}
            file = name if name in _option_files(group) else default  # of which a class of one's own keeps values
            changed |= {f"{group}.{key}": node[key] for key in _differing(group, file, node) if key in node}
    return changed
