"""The console scripts: one small function each. torch is imported only once there is work for it."""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from vae_cli import __version__
from vae_cli.config import help
from vae_cli.distributed.ranks import Rank, rank_from_environment
from vae_cli.errors import INTERRUPTED, ConfigError, ConnectionLost, OutputError, describe, print_error
from vae_cli.system import streams
from vae_cli.system.paths import provide_home
from vae_cli.training.signals import hangup

GRACE = 2.0  # seconds for rank 0 to say what has ended all processes


def train(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-train`: train once or, with `-m`, once for every combination of a sweep."""
    with _command("train", argv) as words:
        from vae_cli.config.command_line import read_command_line
        from vae_cli.config.launch import launch

        rank, line = rank_from_environment(), read_command_line(words)
        if rank.world_size > 1:
            sys.exit(_train_with_others(rank, words))
        if line.multirun:
            from vae_cli.sweeps.launch import launch_sweep

            sys.exit(launch_sweep(line, _train_job, _check_parts))
        sys.exit(launch(line, _train_job, _check_parts))


def sample(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-sample`: draw new examples from a trained model."""
    _run_command("sample", argv)


def evaluate(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-evaluate`: measure a trained model."""
    _run_command("evaluate", argv)


def reconstruct(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-reconstruct`: pass images through a trained model."""
    _run_command("reconstruct", argv)


def encode(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-encode`: write the latent codes of images."""
    _run_command("encode", argv)


def export(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-export`: write a trained model for other programs, or upload it for other people."""
    _run_command("export", argv)


def explore(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-explore`: move through a trained model's latent space by hand, on a page."""
    _run_command("explore", argv)


def compare(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-compare`: put many runs side by side."""
    with _command("compare", argv) as words:
        from vae_cli.commands import compare
        from vae_cli.config.command_line import read_command_line
        from vae_cli.config.launch import call

        line, directories = read_command_line(words).without_directories()
        if not directories and not line.has_question:
            raise ConfigError("name run directories or sweep directories: vae-compare DIR …")
        sys.exit(call("compare", line, partial(compare.run, directories)))


def _run_command(name: str, argv: Sequence[str] | None) -> NoReturn:
    """Run a command of a trained model: a config in, files out."""
    with _command(name, argv) as words:
        from vae_cli.config.command_line import read_command_line
        from vae_cli.config.launch import call

        def run(config: dict[str, Any]) -> None:
            importlib.import_module(f"vae_cli.commands.{name}").run(config)

        sys.exit(call(name, read_command_line(words), run))


# Training


def _train_job(config: dict[str, Any], directory: Path, overridden: frozenset[str], command: str, **more: Any) -> int:
    from vae_cli.training.run import run

    return run(config, directory, overridden, command, **more)


def _check_parts(config: dict[str, Any], overridden: frozenset[str]) -> None:
    """Hold the config of every group against the class that it names, before anything is made on the disk."""
    from vae_cli.build.registry import check_groups

    check_groups(config, overridden)


def _train_with_others(rank: Rank, words: Sequence[str]) -> int:
    """Train as one of the processes that torchrun started. Each reads the command line; rank 0 alone speaks.

    torchrun ends the others when one fails.
    """
    from vae_cli.config import overrides
    from vae_cli.config.command_line import read_command_line
    from vae_cli.config.compose import compose
    from vae_cli.config.launch import launch

    line = read_command_line(words)
    if line.multirun:
        raise ConfigError("-m: a sweep trains with one process each; start it without torchrun, or leave out -m")
    if rank.is_main and line.has_question:
        return launch(line, _train_job)
    if line.has_question:
        return 0
    config = compose("train", words)  # a mistake ends every process here, before any waits for another
    _check_parts(config, overrides.keys(line.overrides))

    from vae_cli.distributed import collectives
    from vae_cli.training.run import run

    collectives.connect(rank)
    if rank.is_main:
        return launch(line, partial(run, rank=rank))
    return run(config, Path(), rank=rank)


# The way into a command and out of it


@contextmanager
def _command(name: str, argv: Sequence[str] | None) -> Iterator[Sequence[str]]:
    """Give a command its words, answer --help and --version, and turn what it raises into one line and a status."""
    words = sys.argv[1:] if argv is None else argv
    streams.prepare()
    _let_idle_threads_sleep()
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, *hangup()):
            signal.signal(number, _exit_on_signal)  # an exception, so that half-written files are cleared away
    is_main = os.environ.get("RANK", "0") == "0"
    if not is_main:
        warnings.simplefilter("ignore")
        sys.stdout = streams.null_file()
    status: int | str | None = 1
    is_training = False
    try:
        if "--version" in words:
            print(f"vae_cli {__version__}")
        elif any(word in ("--help", "-h") or word.startswith("--help=") for word in words):
            print(help.help_text(name, words))
        else:
            is_training = name == "train"
            provide_home()
            yield words
        status = 0
    except SystemExit as stop:
        status = stop.code
    except KeyboardInterrupt:
        print(f"vae-{name}: interrupted", file=sys.stderr)
        status = INTERRUPTED
    except Exception as error:
        if is_main or not isinstance(error, (ConfigError, ConnectionLost)):
            print_error(f"vae-{name}" if is_main else f"vae-{name}: rank {os.environ['RANK']}", error)
        else:
            time.sleep(GRACE)  # rank 0 prints it, and torchrun ends the others as soon as one has ended
    failure = streams.flush()
    if failure and not status and not is_training:  # which keeps its numbers in files
        status = 1
        if not isinstance(failure, BrokenPipeError):
            print_error(f"vae-{name}", OutputError(f"standard output cannot be written ({describe(failure)})"))
    if os.environ.get("WORLD_SIZE", "1") != "1":
        # The interpreter would wait for a collective that never ends; and gloo's threads may abort its end.
        os._exit(int(status or 0))
    sys.exit(status)


def _let_idle_threads_sleep() -> None:
    """Let torch's idle threads sleep after a short wait; this must be set before torch is imported.

    By default they spin, and beside one other busy program a small model's step then takes some fifty times as long.
    """
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _exit_on_signal(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)
