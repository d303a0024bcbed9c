"""What the shell hands over, made readable to Hydra: paths quoted, `sweep=` spelled out."""

import re
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from hydra._internal.utils import get_args_parser

from vae_cli.config import flags

_PATHS = (
    *("checkpoint", "resume", "dataset.path", "dataset.cache", "data_dir", "input", "output"),
    *("sweep", "hydra.run.dir", "hydra.sweep.dir"),
)
_SETTING = re.compile(rf"(\+{{0,2}})({'|'.join(map(re.escape, _PATHS))})=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)
_PART = re.compile(rf"(?:{_QUOTED.pattern}(?=,|$)|[^,])+|(?<=,)(?=,|$)", re.DOTALL)
_OPEN = re.compile(r"(\\*)\$\{(?![^{}]*\})")
_INTERPOLATION = re.compile(r"(\\*)\$\{")


def for_hydra(argument: str, multirun: bool) -> str:
    """One argument of the command line as Hydra has to see it.

    The values of the keys that hold paths are quoted, so that they arrive as the shell gave them. Under
    `multirun` an unquoted comma still separates the values of a sweep, and `sweep=DIR` names its directory.
    """
    match = _SETTING.fullmatch(argument)
    if not match:
        return argument
    prefix, key, value = match.groups()
    if multirun and key == "sweep":
        key = "hydra.sweep.dir"
    swept = multirun and not key.startswith("hydra.")
    if swept and _SWEEP.fullmatch(value):
        return argument
    parts = _PART.findall(value) if swept else [value]
    return f"{prefix}{key}={','.join(map(_quote, parts))}"


def as_typed(argument: str) -> str:
    """One argument as a person may have typed it: `for_hydra` makes of it what it was."""
    match = _SETTING.fullmatch(argument)
    plain = re.fullmatch(r"'([^'\\$]*)'", match[3]) if match else None
    return f"{match[1]}{match[2]}={plain[1]}" if match and plain else argument


def escape(value: str, what: re.Pattern[str] = _INTERPOLATION) -> str:
    """A text in which OmegaConf sees no interpolation and which it resolves to the one given."""
    return what.sub(lambda match: match[1] * 2 + r"\${", value)


def _quote(value: str) -> str:
    """Single quotes around a value; a `${` that nothing closes is escaped, the others interpolate."""
    if value in ("", "null") or _QUOTED.fullmatch(value):
        return value
    doubled = re.sub(r"(\\+)(?='|\Z)", lambda match: match[1] * 2, escape(value, _OPEN))
    return "'" + doubled.replace("'", r"\'") + "'"


@dataclass(frozen=True)
class CommandLine:
    """Hydra's overrides, readable to it, and its flags."""

    overrides: list[str]
    flags: Namespace

    @property
    def multirun(self) -> bool:
        return bool(self.flags.multirun)

    @property
    def asks(self) -> bool:
        """Whether a flag asks for something else than to run."""
        asked = self.flags
        return bool(asked.cfg or asked.info or asked.hydra_help or asked.shell_completion)

    def without_places(self) -> tuple["CommandLine", list[str]]:
        """The line without the words that name directories, and those words."""
        places = [word for word in self.overrides if "/" in word.partition("=")[0] or _is_place(word)]
        return replace(self, overrides=[word for word in self.overrides if word not in places]), places


def _is_place(word: str) -> bool:
    return "=" not in word or Path(word).exists()


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Separates flags, wherever they stand, from overrides, and quotes the paths among these.

    Raises:
        ConfigError: for an unknown, incomplete or contradictory flag.
    """
    read = flags.read(argv, get_args_parser)
    return CommandLine([for_hydra(argument, read.multirun) for argument in read.overrides], read)
