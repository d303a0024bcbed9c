"""The words of a command line: flags apart from overrides, the values of path keys quoted for Hydra."""

import re
import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import NoReturn

from hydra._internal.utils import get_args_parser
from hydra.core.override_parser.types import Quote, QuotedString

from vae_cli.build import options
from vae_cli.errors import ConfigError
from vae_cli.runs.config_file import escape

PATH_KEYS = (
    *("checkpoint", "resume", "dataset.path", "dataset.cache", "data_dir", "input", "output"),
    *("sweep", "hydra.run.dir", "hydra.sweep.dir"),
)
_PATH_WORD = re.compile(rf"(\+{{0,2}})({'|'.join(map(re.escape, PATH_KEYS))})=(.*)", re.DOTALL)
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
_SWEEP = re.compile(r"(choice|glob|interval|range|shuffle|sort|tag)\(.*\)", re.DOTALL)
_UNCLOSED = re.compile(r"(\\*)\$\{(?![^{}]*\})")
_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


@dataclass(frozen=True)
class CommandLine:
    """The words of a command line, Hydra's overrides among them, and its flags."""

    words: list[str]
    overrides: list[str]
    flags: Namespace

    @property
    def multirun(self) -> bool:
        return bool(self.flags.multirun)

    @property
    def has_question(self) -> bool:
        """Return whether a flag asks for something else than to run."""
        flags = self.flags
        return bool(flags.cfg or flags.info or flags.hydra_help or flags.shell_completion)

    def text(self, command: str) -> str:
        """Return the command line as a shell reads it back."""
        return shlex.join([f"vae-{command}", *self.words])

    def without_directories(self) -> tuple["CommandLine", list[str]]:
        """Return the line without the words that name directories, and those words."""
        directories = [
            word for word in self.overrides if "/" in word.partition("=")[0] or "=" not in word or Path(word).exists()
        ]
        return replace(self, overrides=[word for word in self.overrides if word not in directories]), directories


def read_command_line(argv: Sequence[str]) -> CommandLine:
    """Separate flags, wherever they stand, from overrides, and quote the paths among these.

    Raises:
        ConfigError: for an unknown, incomplete or contradictory flag.
    """
    parser = get_args_parser()
    flag_names = [name for action in parser._actions for name in action.option_strings]

    def refuse(message: str) -> NoReturn:
        raise ConfigError(_explain_flag(message, flag_names))

    parser.error = refuse  # type: ignore[method-assign]
    # --info takes an optional value, which must not swallow the override behind it.
    words = [
        "--info=all" if word in ("--info", "-i") and following not in _INFO else word
        for word, following in zip(argv, [*argv[1:], ""])
    ]
    flags = parser.parse_intermixed_args(words)
    flags.multirun |= "hydra.mode=MULTIRUN" in flags.overrides
    _check_flags(flags)
    return CommandLine(list(argv), [quote_path(word, flags.multirun) for word in flags.overrides], flags)


def quote_path(word: str, multirun: bool = False) -> str:
    """Return an override as Hydra has to see it: the value of a path key in quotes.

    Under `multirun` an unquoted comma still separates the values of a sweep, and `sweep=DIR` names its directory.
    """
    match = _PATH_WORD.fullmatch(word)
    if not match:
        return word
    prefix, key, value = match.groups()
    key = "hydra.sweep.dir" if multirun and key == "sweep" else key
    if not multirun or key.startswith("hydra."):
        return f"{prefix}{key}={quote(value)}"
    if value.startswith(("'", '"')) or _SWEEP.fullmatch(value):
        return word
    return f"{prefix}{key}={','.join(map(quote, value.split(',')))}"


def quote(value: str) -> str:
    """Return a value in Hydra's quotes, unless it has its own; a `${` that nothing closes is a text."""
    if value in ("", "null") or _QUOTED.fullmatch(value):
        return value
    return QuotedString(escape(value, _UNCLOSED), Quote.single).with_quotes()


def _explain_flag(message: str, flag_names: list[str]) -> str:
    """Return argparse's message about a flag with the fix."""
    wrong = re.search(r"unrecognized arguments: (\S+)", message)
    if not wrong:
        return f"{message.removeprefix('argument ')}; --help lists the flags"
    setting = re.fullmatch(r"--?([a-z][\w.]*)(=.*)?", wrong[1])
    if setting and setting[1].partition(".")[0] in options.every_key():
        return f"unknown flag {wrong[1]}: settings have no dashes, write {setting[1]}{setting[2] or '=VALUE'}"
    near = get_close_matches(wrong[1], flag_names, n=1)
    return f"unknown flag {wrong[1]}: " + (f"did you mean {near[0]}?" if near else "--help lists the flags")


def _check_flags(flags: Namespace) -> None:
    actions = {
        "--run": flags.run,
        "-m": flags.multirun,
        "--cfg": flags.cfg,
        "--info": flags.info,
        "--shell-completion": flags.shell_completion,
    }
    chosen = [name for name, value in actions.items() if value]
    if len(chosen) > 1:
        raise ConfigError(f"{' and '.join(chosen)} do not go together: keep one")
    if flags.resolve and not flags.cfg:
        raise ConfigError("--resolve goes with --cfg: add --cfg job")
    if flags.experimental_rerun:
        raise ConfigError("--experimental-rerun is not supported: use resume=RUN_DIR")
