"""Which keys a config has, what each top-level key accepts, and the answer to an unknown one."""

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

from vae_cli.config import options
from vae_cli.constraints import (
    BelowOne,
    Count,
    Described,
    FilePath,
    FolderPath,
    Index,
    Length,
    Name,
    NonNegative,
    Pattern,
    Positive,
    Range,
    accepts,
    check_value,
    show,
)
from vae_cli.errors import ConfigError

MAY_CHANGE = ("epochs", "device", "compile", "checkpoint_every", "sample_every", "logger", "threads")  # beside resume=
_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
_SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_POSITIVE_NUMBER = r"(?=.*[1-9])(\d+(?:\.\d+)?) *"
_INTERVAL = rf"{_POSITIVE_NUMBER}({'|'.join(_UNITS)})"
_SIZE = rf"{_POSITIVE_NUMBER}({'|'.join(_SIZES)})"

RULES: dict[str, Any] = {
    "latent_dim": Count,
    "conditional": bool,
    "mc_samples": Count,
    "batch_size": Count,
    "epochs": Index,
    "seed": Annotated[int, Range(0, 2**63 - 1)],
    "device": Annotated[
        str,
        Pattern(r"auto|cpu|cuda(:\d+)?|mps"),
        Described("auto, cpu, cuda, cuda:N or mps", suggested=("auto", "cuda", "mps")),
    ],
    "threads": Count | None,
    "fail_fast": bool,
    "retry_failed": bool,
    "optimize": Annotated[
        Name | Annotated[Sequence[Name], Length(1)],
        Described("a number of the metrics such as validation/elbo, or a list of them"),
    ],
    "precision": Literal["float32", "bfloat16"],
    "compile": bool,
    "data_dir": FolderPath | None,
    "resume": Annotated[FilePath, Described("a run directory")] | None,
    "init_output_bias": bool,
    "report": bool,
    "clip_grad_norm": Positive | None,
    "ema_decay": BelowOne | None,
    "early_stopping": Count | None,
    "checkpoint_every": Annotated[
        Count | Annotated[str, Pattern(_INTERVAL)],
        Described("epochs, an integer of at least 1, or a time such as 10min"),
    ],
    "sample_every": Index,
    "log_every": Count,
    "allow": Annotated[Name, Described("a package's name")] | None,
    "checkpoint": Annotated[FilePath, Described("a run directory or a checkpoint file")] | None,
    "n": Count | None,
    "mode": Literal["prior", "interpolate", "traverse", "manifold"],
    "sampler": Literal["prior", "gmm", "aggregate"],
    "components": Count,
    "metric": Name,
    "between": Annotated[Sequence[Index], Length(2), Described("a list of two or more images' numbers, such as [3,17]")]
    | None,
    "around": Annotated[Index, Described("an image's number, from 0 on")] | None,
    "steps": Annotated[int, Range(2, 1000)] | None,
    "temperature": NonNegative,
    "label": Annotated[Literal["all"] | Index, Described("all or a label, an integer of at least 0")] | None,
    "input": Annotated[FilePath, Described("train, validation, test, a folder of images or an .npz or .npy file")],
    "split": Literal["train", "validation", "test"],
    "num_importance_samples": Count,
    "limit": Count | None,
    "memory": Literal["auto"] | Annotated[str, Pattern(_SIZE), Described("a size such as 500MB or 2GB")],
    "draw": bool,
    "format": Literal["grid", "png", "npz"],
    "output": FilePath | None,
}


def check(config: Mapping[str, Any], command: str = "train") -> None:
    """Check that a plain config has the keys of its command, and every value at its top level.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    check_keys(config, command)
    check_values(config)


def check_values(config: Mapping[str, Any]) -> None:
    """Check the top-level values of a plain config; those inside a group are the class's that takes them.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    for key, annotation in RULES.items():
        if key in config:
            check_value(key, config[key], annotation)


def is_accepted(key: str, value: Any) -> bool:
    """Return whether a top-level key takes a value; True for a key inside a group."""
    return accepts(RULES.get(key, Any), value)


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
        if key not in config:
            raise ConfigError(f"{key} is missing: vae-{command} needs it, leave it in")
    for group, default in groups.items():
        if default == "null" and isinstance(config.get(group), dict):
            key = next(iter(config[group]), "…")
            raise ConfigError(
                f"{group}.{key}: the option file of {group}= leaves its keys under {group}; "
                "begin it with the line # @package _global_"
            )
        if group in config and not isinstance(config[group], dict):
            names = ", ".join(options.general_options(group))
            raise ConfigError(f"{group}={show(config[group])}: {group} accepts one of {names}")


def parse_interval(value: int | str) -> tuple[int | None, float | None]:
    """Return `(epochs, None)` for a count of epochs, `(None, seconds)` for a time such as `10min`, `30 s`, `2h`.

    Raises:
        ConfigError: if it is neither.
    """
    check_value("checkpoint_every", value, RULES["checkpoint_every"])
    if isinstance(value, int):
        return value, None
    match = re.fullmatch(_INTERVAL, value)
    assert match
    return None, float(match[1]) * _UNITS[match[2]]


def parse_bytes(value: str) -> float:
    """Return the bytes in a size such as `500MB`, `2 GB`.

    Raises:
        ConfigError: if it is none.
    """
    check_value("memory", value, RULES["memory"])
    match = re.fullmatch(_SIZE, value)
    assert match
    return float(match[1]) * _SIZES[match[2]]


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
