"""The flags of a command line: which there are is the parser's, what is wrong with one is said here."""

import re
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import NoReturn

from vae_cli.config import options
from vae_cli.errors import ConfigError

_INFO = ("all", "config", "defaults", "defaults-tree", "plugins", "searchpath")


def read(argv: Sequence[str], make_parser: Callable[[], ArgumentParser]) -> Namespace:
    """The flags, wherever they stand; its `overrides` are the other words.

    Raises:
        ConfigError: for an unknown, incomplete or contradictory flag.
    """
    parser = make_parser()
    known = [name for action in parser._actions for name in action.option_strings]

    def refuse(message: str) -> NoReturn:
        raise ConfigError(_what_is_wrong(message, known))

    parser.error = refuse  # type: ignore[method-assign]
    flags = parser.parse_intermixed_args(_spell_out_info(argv))
    flags.multirun |= "hydra.mode=MULTIRUN" in flags.overrides
    _check(flags)
    return flags


def _spell_out_info(argv: Sequence[str]) -> list[str]:
    """`--info` takes an optional value, which must not swallow the override behind it."""
    behind = [*argv[1:], ""]
    return [
        "--info=all" if argument in ("--info", "-i") and following not in _INFO else argument
        for argument, following in zip(argv, behind)
    ]


def _what_is_wrong(message: str, known: list[str]) -> str:
    wrong = re.search(r"unrecognized arguments: (\S+)", message)
    if not wrong:
        return f"{message.removeprefix('argument ')}; --help lists the flags"
    setting = re.fullmatch(r"--?([a-z][\w.]*)(=.*)?", wrong[1])
    if setting and setting[1].partition(".")[0] in options.every_key():
        return f"unknown flag {wrong[1]}: settings have no dashes, write {setting[1]}{setting[2] or '=VALUE'}"
    near = get_close_matches(wrong[1], known, n=1)
    hint = f"did you mean {near[0]}?" if near else "--help lists the flags"
    return f"unknown flag {wrong[1]}: {hint}"


def _check(flags: Namespace) -> None:
    actions = {
        "--run": flags.run,
        "-m": flags.multirun,
        "--cfg": flags.cfg,
        "--info": flags.info,
        "--shell-completion": flags.shell_completion,
    }
    asked = [name for name, value in actions.items() if value]
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} do not go together: keep one")
    if flags.resolve and not flags.cfg:
        raise ConfigError("--resolve goes with --cfg: add --cfg job")
    if flags.experimental_rerun:
        raise ConfigError("--experimental-rerun is not supported: use resume=RUN_DIR")
