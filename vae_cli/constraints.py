"""Constraints on the values of an argument, written once, in its annotation.

    def __init__(self, beta: NonNegative = 1.0, kl: Literal["auto", "analytic"] = "auto", hidden: Widths = (400,)):

`check_value` holds the value of a key against such an annotation; nobody keeps a second table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from vae_cli.errors import ConfigError

LONGEST_LIST = 1000


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`; an end that is `open` is left out."""

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        high = "2**63 - 1" if self.high > 2**62 else f"{self.high:g}"
        if self.high == math.inf:
            return f"above {self.low:g}" if self.open_low else f"of at least {self.low:g}"
        if self.open_low:
            return f"above {self.low:g} and " + (f"below {high}" if self.open_high else f"at most {high}")
        return f"from {self.low:g} to {'below ' if self.open_high else ''}{high}"


@dataclass(frozen=True)
class Pattern:
    """A regular expression that a whole text matches."""

    regex: str


@dataclass(frozen=True)
class Length:
    """Limits on the number of a list's entries."""

    least: int
    most: int = LONGEST_LIST


@dataclass(frozen=True)
class Described:
    """Words that take the place of a type's own where an error says what is accepted, and names to suggest."""

    words: str
    suggested: tuple[str, ...] = ()


Count = Annotated[int, Range(1)]
Index = Annotated[int, Range(0)]
ImageSize = Annotated[int, Range(1, 4096)]
Positive = Annotated[float, Range(0, open_low=True)]
NonNegative = Annotated[float, Range(0)]
Fraction = Annotated[float, Range(0, 1)]
BelowOne = Annotated[float, Range(0, 1, open_high=True)]
Widths = Annotated[Sequence[Count], Described("a list of integers of at least 1, such as [400]")]
Channels = Annotated[
    Sequence[Count], Length(1), Described("a list of one or more integers of at least 1, such as [32, 64]")
]
Betas = Annotated[Sequence[BelowOne], Length(2, 2), Described("two numbers from 0 to below 1, such as [0.9, 0.999]")]
Name = Annotated[str, Pattern(r"(?s).*\S.*"), Described("a name")]
FilePath = Annotated[str, Pattern(r"(?s)[^\0]*[^\0\s][^\0]*"), Described("a path")]
FolderPath = Annotated[FilePath, Described("a folder")]


def check_value(key: str, value: Any, annotation: Any) -> None:
    """Check a plain value of a config against the annotation of the argument that takes it.

    Raises:
        ConfigError: naming the key, its value and what it accepts.
    """
    if accepts(annotation, value):
        return
    near = get_close_matches(str(value), _suggested(annotation), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise ConfigError(f"{key}={show(value)}: {key} accepts {describe_type(annotation)}{hint}")


def check_takes(
    config: Mapping[str, Any], choice: str, takers: Mapping[str, Sequence[str]], defaults: Mapping[str, Any]
) -> None:
    """Refuse keys that the option chosen by another key does not take.

    Args:
        config: the plain config.
        choice: the key that chooses, such as `format`.
        takers: the options that take a key, for every key that not all take.
        defaults: the values of these keys that ask for nothing.

    Raises:
        ConfigError: naming the key, and the options that take it.
    """
    chosen = config[choice]
    for key, options in takers.items():
        if chosen not in options and config[key] != defaults[key]:
            raise ConfigError(
                f"{key}={show(config[key])}: {choice}={chosen} takes no {key}; "
                f"it goes with {choice}={' or '.join(options)}"
            )


def accepts(annotation: Any, value: Any) -> bool:
    """Return whether a plain value fits an annotation; anything fits one that says nothing of plain values."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return accepts(arguments[0], value) and all(_is_met(limit, value) for limit in arguments[1:])
    if origin in (Union, UnionType):
        return any(accepts(option, value) for option in arguments)
    if origin is Literal:
        return any(type(value) is type(option) and value == option for option in arguments)
    if origin in (Sequence, list, tuple):
        if not isinstance(value, (list, tuple)) or len(value) > LONGEST_LIST:
            return False
        if origin is tuple and Ellipsis not in arguments:
            return len(value) == len(arguments) and all(map(accepts, arguments, value))
        return all(accepts(arguments[0], entry) for entry in value)
    if annotation in (None, NoneType):
        return value is None
    if annotation in (bool, str, list, dict):
        return isinstance(value, annotation)
    if annotation is int:
        return isinstance(value, int) and not isinstance(value, bool)
    if annotation is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return True


def _is_met(limit: Any, value: Any) -> bool:
    if isinstance(limit, Range):
        return value in limit
    if isinstance(limit, Pattern):
        return re.fullmatch(limit.regex, value) is not None
    return limit.least <= len(value) <= limit.most if isinstance(limit, Length) else True


def as_annotated(annotation: Any, value: Any) -> Any:
    """Return a whole number as a float where the annotation asks for a float: a command line's 3 is an int."""
    is_whole, types = isinstance(value, int) and not isinstance(value, bool), _plain_types(annotation)
    return float(value) if is_whole and float in types and int not in types else value


def from_text(annotation: Any, value: Any) -> Any:
    """Return the number, the truth value or the null that a text spells, where the annotation asks for one.

    The environment, which `${oc.env:NAME}` reads, holds nothing but texts.
    """
    types = _plain_types(annotation)
    takes_texts = str in types or not types
    if accepts(annotation, value) and (takes_texts or not isinstance(value, str)):
        return value
    read = [_read(entry) for entry in value] if isinstance(value, list) else _read(value)
    return read if accepts(annotation, read) else value


def _read(text: Any) -> Any:
    if not isinstance(text, str):
        return text
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return {"true": True, "false": False, "null": None}.get(text.lower(), text)


def _plain_types(annotation: Any) -> set[Any]:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _plain_types(arguments[0])
    if origin in (Union, UnionType):
        return set().union(*map(_plain_types, arguments))
    return {annotation} if annotation in (int, float, str) else set()


def describe_type(annotation: Any) -> str:
    """Return what an annotation accepts, in words such as "a number of at least 0"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        words = [limit.words for limit in arguments[1:] if isinstance(limit, Described)]
        ranges = [str(limit) for limit in arguments[1:] if isinstance(limit, Range)]
        return words[-1] if words else " ".join([describe_type(arguments[0]), *ranges])
    if origin in (Union, UnionType):
        options = sorted(arguments, key=lambda option: option is not NoneType)
        return " or ".join(describe_type(option) for option in options)
    if origin is Literal:
        *first, last = map(show, arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if origin in (Sequence, list, tuple):
        return f"a list, each entry {describe_type(arguments[0])}"
    names = {int: "an integer", float: "a number", bool: "true or false", str: "a text", NoneType: "null", None: "null"}
    return names.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _suggested(annotation: Any) -> list[str]:
    """Return the names that an annotation accepts, for the hint about a misspelled one."""
    if isinstance(annotation, Described):
        return list(annotation.suggested)
    if get_origin(annotation) is Literal:
        return [option for option in get_args(annotation) if isinstance(option, str)]
    return [name for argument in get_args(annotation) for name in _suggested(argument)]


def show(value: Any) -> str:
    """Return a value as one would write it on a command line, on one line."""
    if isinstance(value, list):
        return f"[{', '.join(map(show, value))}]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    text = repr(value) if value == "" or not str(value).isprintable() else str(value)
    return text if len(text) <= 200 else f"{text[:200]}..."
