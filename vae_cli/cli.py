"""The commands: one small function per console script. torch is imported by the jobs alone."""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from vae_cli import __version__
from vae_cli.config import help
from vae_cli.distributed.processes import ALONE, Processes, seat
from vae_cli.errors import INTERRUPTED, ConfigError, guard


def train(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-train`: trains once or, under `-m`, once for every combination of a sweep; exits with the status."""
    sys.exit(_answer("train", argv, _train))


def sample(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-sample`: draws images from a checkpoint; exits with the status."""
    sys.exit(_answer("sample", argv, partial(_call, "sample", _sample)))


def evaluate(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-evaluate`: scores a checkpoint's model; exits with the status."""
    sys.exit(_answer("evaluate", argv, partial(_call, "evaluate", _evaluate)))


def reconstruct(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-reconstruct`: passes images through a checkpoint's model; exits with the status."""
    sys.exit(_answer("reconstruct", argv, partial(_call, "reconstruct", _reconstruct)))


def encode(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-encode`: writes the latent codes of images; exits with the status."""
    sys.exit(_answer("encode", argv, partial(_call, "encode", _encode)))


def compare(argv: Sequence[str] | None = None) -> NoReturn:
    """`vae-compare`: many runs side by side; exits with the status."""
    sys.exit(_answer("compare", argv, _compare))


def _train(argv: Sequence[str]) -> int:
    processes = Processes(seat())
    if processes.count == 1:
        return _launch(argv, _train_job)
    from vae_cli.distributed import ranks

    if not processes.is_first:
        return ranks.follow(processes)
    return ranks.lead(processes, partial(_launch_once, argv, partial(_train_job, processes=processes)))


def _launch(argv: Sequence[str], job: Callable[..., int]) -> int:
    from vae_cli.config import command_line, launch

    line = command_line.read_command_line(argv)
    if line.multirun:
        from vae_cli.sweeps import launch as sweeping

        return sweeping.launch(line, job)
    return launch.launch(line, job, _check_groups)


def _check_groups(config: dict[str, Any], overridden: frozenset[str]) -> None:
    from vae_cli.build import registry

    registry.check_groups(config, overridden)


def _launch_once(argv: Sequence[str], job: Callable[..., int]) -> int:
    from vae_cli.config import command_line

    if command_line.read_command_line(argv).multirun:
        raise ConfigError("-m: a sweep trains with one process each; start it without torchrun, or leave out -m")
    return _launch(argv, job)


def _train_job(
    config: dict[str, Any], directory: Path, given: frozenset[str], command: str, processes: Processes = ALONE
) -> int:
    from vae_cli.system import threads
    from vae_cli.training import run

    threads.tune()
    threads.use_threads(config["threads"])
    start = run.run if config["resume"] is None else run.resume
    return start(config, directory, given, command, *([processes] if processes.count > 1 else []))


def _call(command: str, job: Callable[[dict[str, Any]], None], argv: Sequence[str]) -> int:
    from vae_cli.config import command_line, launch

    return launch.call(command, command_line.read_command_line(argv), job)


def _sample(config: dict[str, Any]) -> None:
    from vae_cli.commands.sample import run

    run(config)


def _evaluate(config: dict[str, Any]) -> None:
    from vae_cli.commands.evaluate import run
    from vae_cli.system import threads

    threads.tune()
    run(config)


def _reconstruct(config: dict[str, Any]) -> None:
    from vae_cli.commands.reconstruct import run

    run(config)


def _encode(config: dict[str, Any]) -> None:
    from vae_cli.commands.encode import encode

    encode(config)


def _compare(argv: Sequence[str]) -> int:
    from vae_cli.commands import compare
    from vae_cli.config import command_line, launch

    line, places = command_line.read_command_line(argv).without_directories()
    if not places and not line.has_question:
        raise ConfigError("name run directories or sweep directories: vae-compare DIR …")
    return launch.call("compare", line, partial(compare.run, places))


def _spare_the_cores() -> None:
    """Lets torch's idle threads sleep after a short wait; set before torch is imported. By default they spin, and
    beside one other busy program a small model's step then takes some fifty times as long."""
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "20000")


def _leave(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)


def _answer(command: str, argv: Sequence[str] | None, run: Callable[[Sequence[str]], int]) -> int:
    words = sys.argv[1:] if argv is None else argv
    _spare_the_cores()
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)  # an exception, so that what is half done is cleared away
    try:
        return guard(f"vae-{command}", partial(_page_or_run, command, words, run))
    except KeyboardInterrupt:
        print(f"vae-{command}: interrupted", file=sys.stderr)
        return INTERRUPTED


def _page_or_run(command: str, words: Sequence[str], run: Callable[[Sequence[str]], int]) -> int:
    if "--version" in words:
        _print_once(f"vae_cli {__version__}")
    elif "--help" in words or "-h" in words:
        _print_once(help.help_text(command))
    else:
        status = run(words)
        sys.stdout.flush()
        return status
    sys.stdout.flush()
    return 0


def _print_once(text: str) -> None:
    if seat().rank == 0:
        print(text)
