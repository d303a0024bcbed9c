"""What each setting accepts, and how a wrong one is answered."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from vae_cli.config import options
from vae_cli.errors import ConfigError
from vae_cli.runs.reader import METRICS

MAY_CHANGE = ("epochs", "device", "compile", "checkpoint_every", "sample_every", "logger", "threads")  # beside resume=
_UNITS = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}
LONGEST_LIST = 1000
_INTERVAL = re.compile(rf"(\d+(?:\.\d+)?) *({'|'.join(_UNITS)})")
_SIZES = {"KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}
_SIZE = re.compile(rf"(\d+(?:\.\d+)?) *({'|'.join(_SIZES)})")
_DEVICE = re.compile(r"auto|cpu|cuda(:\d+)?|mps")


@dataclass(frozen=True)
class Rule:
    """What a key accepts, in words and as a test, and the names to suggest."""

    accepts: str
    test: Callable[[Any], bool]
    names: tuple[str, ...] = ()


def show(value: Any) -> str:
    """A value as one would type it, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if value == "" or not str(value).isprintable() else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."


def _integer(least: int, most: float = math.inf) -> Rule:
    bound = f"of at least {least}" if most == math.inf else f"from {least} to {'2**63 - 1' if most > 2**62 else most}"
    return Rule(f"an integer {bound}", lambda v: _is_integer(v) and least <= v <= most)


def _number(accepts: str, test: Callable[[float], bool]) -> Rule:
    return Rule(accepts, lambda v: _is_number(v) and test(v))


def _choice(*names: str) -> Rule:
    return Rule(_either(names), lambda v: isinstance(v, str) and v in names)


def _or(word: str | None, rule: Rule) -> Rule:
    """The rule, or one value besides: null (None) or a word."""
    shown = show(word)
    return Rule(f"{shown} or {rule.accepts}", lambda v: v == word or rule.test(v))


def _list(what: str, test: Callable[[Any], bool], least: int = 0) -> Rule:
    return Rule(what, lambda v: isinstance(v, list) and least <= len(v) <= LONGEST_LIST and all(map(test, v)))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return (_is_integer(value) or isinstance(value, float)) and math.isfinite(value)


def _is_interval(value: Any) -> bool:
    match = _INTERVAL.fullmatch(value) if isinstance(value, str) else None
    return (_is_integer(value) and value >= 1) or bool(match and float(match[1]) > 0)


def _is_size(value: Any) -> bool:
    return isinstance(value, str) and bool(_SIZE.fullmatch(value)) and float(_SIZE.fullmatch(value)[1]) > 0  # type: ignore[index]


def _either(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


_COUNT = _integer(1)
_BOOL = Rule("true or false", lambda v: isinstance(v, bool))
_TEXT = Rule("a name", lambda v: isinstance(v, str) and bool(v.strip()))
_PATH = Rule("a path", lambda v: _TEXT.test(v) and "\0" not in v)
_AT_LEAST_0 = _number("a number of at least 0", lambda v: v >= 0)
_WIDTH = _COUNT.test

RULES: dict[str, Rule] = {
    "latent_dim": _COUNT,
    "conditional": _BOOL,
    "mc_samples": _COUNT,
    "batch_size": _COUNT,
    "epochs": _integer(0),
    "seed": _integer(0, 2**63 - 1),
    "device": Rule(
        "auto, cpu, cuda, cuda:N or mps",
        lambda v: isinstance(v, str) and bool(_DEVICE.fullmatch(v)),
        ("auto", "cuda", "mps"),
    ),
    "threads": _or(None, _COUNT),
    "fail_fast": _BOOL,
    "retry_failed": _BOOL,
    "optimize": Rule(
        "a number of the metrics such as validation/elbo, or a list of them",
        lambda v: all(_TEXT.test(each) for each in (v if isinstance(v, list) and v else [v])),
    ),
    "precision": _choice("float32", "bfloat16"),
    "compile": _BOOL,
    "data_dir": _or(None, Rule("a folder", _PATH.test)),
    "resume": _or(None, Rule("a run directory", _PATH.test)),
    "init_output_bias": _BOOL,
    "report": _BOOL,
    "clip_grad_norm": _or(None, _number("a number above 0", lambda v: v > 0)),
    "ema_decay": _or(None, _number("a number from 0 to below 1", lambda v: 0 <= v < 1)),
    "early_stopping": _or(None, _COUNT),
    "checkpoint_every": Rule("epochs, an integer of at least 1, or a time such as 10min", _is_interval),
    "sample_every": _integer(0),
    "log_every": _COUNT,
    "allow": _or(None, Rule("a package's name", _TEXT.test)),
    "checkpoint": _or(None, Rule("a run directory or a checkpoint file", _PATH.test)),
    "n": _or(None, _COUNT),
    "mode": _choice("prior", "interpolate", "traverse", "manifold"),
    "sampler": _choice("prior", "gmm", "aggregate"),
    "components": _COUNT,
    "metric": Rule(_either(METRICS), lambda v: v in METRICS, METRICS),
    "between": _or(None, _list("a list of two or more images' numbers, such as [3,17]", _integer(0).test, least=2)),
    "around": _or(None, Rule("an image's number, from 0 on", _integer(0).test)),
    "steps": _or(None, _integer(2, 1000)),
    "temperature": _AT_LEAST_0,
    "label": _or(None, Rule("all or a label, an integer of at least 0", lambda v: v == "all" or _integer(0).test(v))),
    "input": Rule("train, validation, test, a folder of images or an .npz or .npy file", _PATH.test),
    "split": _choice("train", "validation", "test"),
    "num_importance_samples": _COUNT,
    "limit": _or(None, _COUNT),
    "memory": _or("auto", Rule("a size such as 500MB or 2GB", lambda v: _is_size(v))),
    "draw": _BOOL,
    "format": _choice("grid", "png", "npz"),
    "output": _or(None, _PATH),
}

_WIDTHS = {
    "hidden": _list("a list of integers of at least 1, such as [400]", _WIDTH),
    "channels": _list("a list of one or more integers of at least 1, such as [32, 64]", _WIDTH, least=1),
    "activation": _TEXT,
}

_FLOW = {
    "kind": _choice("coupling", "maf", "nsf"),
    **dict.fromkeys(("transforms", "context", "bins"), _COUNT),
    "hidden": _list("a list of integers of at least 1, such as [64, 64]", _WIDTH),
}

_BETAS = _list("a list of numbers from 0 to below 1", lambda v: _is_number(v) and 0 <= v < 1)

GROUP_RULES: dict[str, dict[str, Rule]] = {
    "dataset": {
        "path": _or(None, _PATH),
        "binarize": _choice("none", "threshold", "static", "dynamic"),
        "validation": _or(None, _integer(0)),
        "image_size": _integer(1, 4096),
        "channels": Rule("1 or 3", lambda v: _is_integer(v) and v in (1, 3)),
        "on_error": _choice("error", "skip"),
        "subset": _choice("balanced", "byclass", "bymerge", "letters", "digits", "mnist"),
        "cache": _or(None, Rule("a folder", _PATH.test)),
    },
    "encoder": _WIDTHS,
    "decoder": _WIDTHS,
    "posterior": _FLOW,
    "prior": {**_FLOW, "components": _COUNT, "start": _choice("data", "random")},
    "likelihood": {
        "scale": Rule(
            "learned, per_pixel, residual (normal alone) or a number above 0",
            lambda v: v in ("learned", "per_pixel", "residual") or (_is_number(v) and v > 0),
        ),
        "components": _COUNT,
    },
    "objective": {
        "kl": _choice("auto", "analytic", "monte_carlo"),
        **dict.fromkeys(("alpha", "beta", "gamma", "warmup_epochs", "free_bits", "weight"), _AT_LEAST_0),
        "beta_schedule": _choice("constant", "linear", "cyclical"),
        "capacity": _or(None, _AT_LEAST_0),
        "groups": _COUNT,
        "elbo_weight": _number("a number from 0 to 1", lambda v: 0 <= v <= 1),
    },
    "logger": {
        **dict.fromkeys(("project", "experiment_name"), _TEXT),
        "entity": _or(None, _TEXT),
        "mode": _or(None, _choice("online", "offline", "disabled")),
    },
    "optimizer": {
        **dict.fromkeys(("lr", "eps", "weight_decay"), _AT_LEAST_0),
        **dict.fromkeys(("momentum", "alpha"), _number("a number from 0 to below 1", lambda v: 0 <= v < 1)),
        "betas": _BETAS,
        "nesterov": _BOOL,
        "*": Rule("a finite number", lambda v: not isinstance(v, float) or math.isfinite(v)),
    },
    "scheduler": {
        "warmup_epochs": _AT_LEAST_0,
        "final": _number("a number from 0 to 1", lambda v: 0 <= v <= 1),
        "gamma": _number("a number above 0 and at most 1", lambda v: 0 < v <= 1),
        "milestones": _list(
            "a list of fractions of the training, each between 0 and 1", lambda v: _is_number(v) and 0 < v < 1
        ),
    },
}


def check(config: Mapping[str, Any], command: str = "train") -> None:
    """Checks that a plain config has the keys of its command, and the type and range of every known value.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    check_keys(config, command)
    check_values(config)


def check_values(config: Mapping[str, Any]) -> None:
    """Checks the type and range of every known value that a plain config has.

    Keys inside a group are judged only where the group builds a class of this package or of `torch.optim`: a
    user's own class has its own rules.

    Raises:
        ConfigError: naming the first wrong key, its value and what it accepts.
    """
    for key, rule in RULES.items():
        if key in config:
            _judge(key, config[key], rule)
    for group, rules in GROUP_RULES.items():
        if group in config and _is_ours(config[group]):
            for key, value in config[group].items():
                _judge(f"{group}.{key}", value, rules.get(key, rules.get("*")))


def accepts(key: str, value: Any) -> bool:
    """Whether a dotted key of this package takes a value; True for one without a rule."""
    group, _, inside = key.partition(".")
    rule = GROUP_RULES.get(group, {}).get(inside) if inside else RULES.get(key)
    return rule is None or rule.test(value)


def check_keys(config: Mapping[str, Any], command: str) -> None:
    """Checks that the top-level keys are a command's own, all of them and no other.

    Raises:
        ConfigError: naming the first key that is missing or unknown.
    """
    allowed = [*(key.name for key in options.keys(command)), *options.groups(command)]
    for key in config:
        if key not in allowed:
            raise ConfigError(unknown(str(key), [*allowed, *_nested(config)]))
    for key in options.needed(command):
        if key not in config:
            raise ConfigError(f"{key} is missing: vae-{command} needs it, leave it in")
    for group in options.groups(command):
        if group in config and not isinstance(config[group], dict):
            choice = ", ".join(options.options(group))
            raise ConfigError(f"{group}={show(config[group])}: {group} accepts one of {choice}")


def parse_interval(value: int | str) -> tuple[int | None, float | None]:
    """`(epochs, None)` for a count of epochs, `(None, seconds)` for a time such as `10min`, `30 s`, `2h`.

    Raises:
        ConfigError: if it is neither.
    """
    _judge("checkpoint_every", value, RULES["checkpoint_every"])
    if isinstance(value, int):
        return value, None
    match = _INTERVAL.fullmatch(value)
    assert match
    return None, float(match[1]) * _UNITS[match[2]]


def parse_bytes(value: str) -> float:
    """Bytes in a size such as `500MB`, `2 GB`.

    Raises:
        ConfigError: if it is none.
    """
    _judge("memory", value, RULES["memory"])
    match = _SIZE.fullmatch(value)
    assert match
    return float(match[1]) * _SIZES[match[2]]


def unknown(key: str, known: Iterable[str]) -> str:
    """The sentence about an unknown key, with the nearest known ones."""
    if key == "sweep":
        return "sweep=DIR is where a sweep goes: add -m and comma-separated values, such as latent_dim=2,8"
    special = key.rpartition(".")[2].startswith("_")
    near = nearest(key, [k for k in known if special or not k.endswith("_target_")])
    return f"unknown key {key}: " + (f"did you mean {_either(near)}?" if near else "--help lists the keys")


def nearest(name: str, known: list[str]) -> list[str]:
    """The known names closest to one that is not: with the same last part, else similar in spelling."""
    last = name.rpartition(".")[2]
    same = [k for k in known if k.rpartition(".")[2] == last]
    spelled = get_close_matches(name, same or known, n=1)
    if same:
        return spelled if spelled and "." in name else same
    parts = {k.rpartition(".")[2] for k in known}
    close = get_close_matches(last, parts, n=1)
    return spelled or [k for k in known if k.rpartition(".")[2] in close]


def _nested(config: Mapping[str, Any]) -> list[str]:
    groups = {group: inside for group, inside in config.items() if isinstance(inside, dict)}
    return [f"{group}.{key}" for group, inside in groups.items() for key in inside if key != "_target_"]


def _is_ours(inside: dict[str, Any]) -> bool:
    return str(inside.get("_target_", "")).startswith(("vae_cli.", "torch.optim."))


def _judge(key: str, value: Any, rule: Rule | None) -> None:
    if rule is None or rule.test(value):
        return
    near = get_close_matches(str(value), rule.names, n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{key}={show(value)}: {key} accepts {rule.accepts}{hint}")
