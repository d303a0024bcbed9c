"""A training from its settings to its summary: set up or resumed, recorded, finished."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from vae_cli.build import parts, registry
from vae_cli.build.device import choose_device
from vae_cli.build.trained import places
from vae_cli.config import compose
from vae_cli.config.validation import MAY_CHANGE, check_values
from vae_cli.data import Data, DataFacts
from vae_cli.distributed.processes import ALONE, Lost, Processes
from vae_cli.errors import CheckpointError, ConfigError, DataError, OutputError, UserError, describe
from vae_cli.evaluation.bounds import evaluate
from vae_cli.loggers import Loggers, TensorBoardLogger
from vae_cli.reporting import run_page
from vae_cli.runs import checkpoint
from vae_cli.runs.directory import Elsewhere, RunDirectory, log
from vae_cli.training.console import about, announce, draw, draw_latents, numbers_line
from vae_cli.training.loop import _note, fit
from vae_cli.training.signals import Interrupted, Interruption
from vae_cli.training.state import Config, Training, on_device


def run(
    settings: Config,
    directory: Path,
    given: frozenset[str] = frozenset(),
    command: str = "",
    processes: Processes = ALONE,
) -> int:
    """Train, score on the test split once, and write the run directory.

    Args:
        settings: the plain composed config.
        directory: the run directory.
        given: dotted keys that were typed.
        command: what was typed, for whoever wants to do it again.
        processes: that train together, of which this is the first; the others `join`.

    Returns:
        The exit status: 0, or 130 or 143 after a signal.

    Raises:
        UserError: for anything a person can mend; the run directory's summary says it too.
    """
    if any((directory / "checkpoints").glob("*.pt")):
        raise UserError(
            f"{directory} holds a training already: resume={directory} goes on with it; else choose another"
        )
    with RunDirectory(directory) as output:
        output.forget_summary()
        output.typed(command)
        call = {"settings": settings, "given": sorted(given), "directory": str(output.path)}
        return _recorded(output, partial(_together, processes, call, output), settings["report"])


def resume(
    settings: Config, directory: Path, given: frozenset[str], command: str = "", processes: Processes = ALONE
) -> int:
    """Go on with an interrupted training exactly where its newest checkpoint stands; as `run` otherwise.

    Args:
        settings: the plain composed config; only what was typed counts, the rest comes from the checkpoint.
        directory: the run directory.
        given: dotted keys that were typed.
        command: what was typed.
        processes: as of `run`, perhaps in another number than began it: the batches stay as they were.

    Raises:
        UserError: if there is nothing to go on with, or something else than `MAY_CHANGE` was typed.
    """
    typed = [key for key in given if not key.startswith("hydra") and key not in ("resume", "allow")]
    for key in [*typed, *(key for key in given if key == "hydra.run.dir")]:
        if key not in MAY_CHANGE and not key.startswith("logger."):
            raise ConfigError(f"{key}: beside resume= only {', '.join(MAY_CHANGE)} may be given")
    path, contents = _newest(directory)
    changes = {key: settings[key] for key in typed if key.partition(".")[0] != "logger"}
    done, wanted = contents["progress"]["epoch"], changes.get("epochs", contents["config"]["epochs"])
    if wanted < done:
        raise ConfigError(f"epochs={wanted}: {directory} has trained for {done} epochs already")
    if _is_finished(directory, contents, changes):
        print(f"{directory} is finished after {contents['progress']['epoch']} epochs; epochs=N trains it further")
        return 0
    with RunDirectory(directory, contents["progress"]["step"]) as output:
        output.typed(command)
        call = {"settings": settings, "changes": changes, "path": str(path), "contents": contents}
        call["directory"] = str(output.path)
        job = partial(_together, processes, call, output)
        return _recorded(output, job, contents["config"].get("report", True))


def join(processes: Processes) -> int:
    """Do what `run` or `resume` does in the first of several processes, in one of the others.

    Raises:
        UserError: as in the first.
    """
    with Elsewhere(Path()) as output:
        return _recorded(output, partial(_together, processes, None, output), False)


def _together(processes: Processes, call: dict[str, Any] | None, output: RunDirectory) -> None:
    """What all processes do, once the first has told the others what that is; if a process is lost, say what now."""
    try:
        processes.call()
        told = processes.told(call)
        assert told is not None, "the first process gives what is to be done"
        output.path = Path(told["directory"])
        if "contents" in told:
            path, contents, changes = Path(told["path"]), told["contents"], told["changes"]
            _go_on(path, contents, changes, told["settings"], output, processes)
        else:
            _start(told["settings"], frozenset(told["given"]), output, processes)
    except Lost as error:
        if any(output.path.glob("checkpoints/*.pt")):
            raise Lost(f"{error}; vae-train resume={output.path} goes on from the last checkpoint") from error
        raise


def _newest(directory: Path) -> tuple[Path, dict[str, Any]]:
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise CheckpointError(f"resume={directory} {what}; name a run directory of vae-train")
    paths = [path for path in sorted((directory / "checkpoints").glob("*.pt")) if path.stem in ("best", "last")]
    if not paths:
        raise CheckpointError(f"resume={directory}: no checkpoint in it; name a run directory of vae-train")
    found, broken = [], []
    for path in paths:
        try:
            found.append((path, checkpoint.load(path)))
        except CheckpointError as error:
            broken.append(error)
    if not found:
        raise broken[0]
    path, contents = max(found, key=lambda pair: (pair[1]["progress"]["step"], pair[0].stem == "last"))
    for damage in broken:
        print(f"left aside: {damage}", file=sys.stderr, flush=True)
    if contents["best"] is not None and not any(other.stem == "best" for other, _ in found):
        print(f"{directory} has no whole best.pt: the best epoch is sought anew from here on", file=sys.stderr)
        contents["best"] = None
    return path, contents


def _is_finished(directory: Path, contents: dict[str, Any], changes: Config) -> bool:
    done = contents["progress"]["epoch"]
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        completed = summary["status"] == "completed" and summary["epochs"] == done
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return completed and changes.get("epochs", 0) <= done


def _recorded(output: RunDirectory, train: Callable[[], None], wants_page: bool) -> int:
    """The exit status of a training; however it ends, the summary says so, and the page where one is wanted."""
    try:
        return _summed_up(output, train)
    finally:
        if wants_page:
            output.attempt(lambda: run_page.write(output.path, has_ended=True), run_page.NAME)


def _summed_up(output: RunDirectory, train: Callable[[], None]) -> int:
    try:
        train()
    except Interrupted as stop:
        log.info("interrupted by %s; vae-train resume=%s goes on", stop, output.path)
        _sum_up(output, "interrupted")
        return stop.exit_status
    except (KeyboardInterrupt, SystemExit):
        _sum_up(output, "interrupted")
        raise
    except OSError as error:
        _fail(output, unwritten := _unwritten(error, output))
        raise unwritten from error
    except Exception as error:
        _fail(output, error)
        raise
    return 0


def _fail(output: RunDirectory, error: Exception) -> None:
    log.debug("traceback", exc_info=True)
    _sum_up(output, "failed", _one_line(error))


def _sum_up(output: RunDirectory, status: str, error: str | None = None) -> None:
    """Write the summary of a run that did not end well, perhaps for the very reason that nothing can be written."""
    try:
        output.summary(status, error)
    except OSError as second:
        log.warning("summary.json could not be written: %s", second.strerror or second)


def _unwritten(error: OSError, output: RunDirectory) -> OutputError:
    """The sentence about a file of the run that cannot be written, and how to go on."""
    what = f"{error.filename or output.path} cannot be written ({error.strerror or error})"
    if any(output.path.glob("checkpoints/*.pt")):
        return OutputError(f"{what}; once it can be, vae-train resume={output.path} goes on from the last checkpoint")
    return OutputError(f"{what}; see to that, or choose another directory with hydra.run.dir=")


def _one_line(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {describe(error)}"


def _start(settings: Config, given: frozenset[str], output: RunDirectory, processes: Processes) -> None:
    began = time.monotonic()
    settings, dropped = registry.check_groups(_anchored(settings), given)
    device = choose_device(settings["device"], processes.seat)
    data = _load(settings, None, processes)
    training = Training(parts.with_likelihood(settings, data.facts), data, device, processes=processes)
    announce(training, data, output, dropped)
    output.log_to(Loggers(TensorBoardLogger(), registry.construct("logger", settings["logger"], {})), training.settings)
    output.note(**about(training, data))
    _train(training, data, output, began)


def _load(settings: Config, trusted: Collection[str] | None, processes: Processes) -> Data:
    """The data, the same for all processes.

    Raises:
        DataError: also if this process has other data than the first.
    """
    with processes.one_ahead():
        data = parts.dataset(settings, trusted).splits()
    facts = asdict(data.facts)
    first = processes.told(facts)
    if DataFacts(**first) != data.facts:
        raise DataError(f"the data here, {_differing(first, facts)}, are not those of the first process")
    return data


def _anchored(settings: Config) -> Config:
    """The settings with absolute paths, so that a training can be resumed from any directory."""

    def absolute(value: Any) -> Any:
        return str(Path(value).expanduser().absolute()) if isinstance(value, str) else value

    dataset = settings["dataset"]
    if not str(dataset["_target_"]).startswith("vae_cli."):
        return settings | {"data_dir": absolute(settings["data_dir"])}
    paths = {key: absolute(dataset[key]) for key in ("path", "cache") if key in dataset}
    return settings | {"dataset": dataset | paths, "data_dir": absolute(settings["data_dir"])}


def _go_on(
    path: Path,
    contents: dict[str, Any],
    changes: Config,
    settings: Config,
    output: RunDirectory,
    processes: Processes,
) -> None:
    began = time.monotonic()
    stored = contents["config"]
    with _naming(path):
        check_values(stored)
        trusted = () if settings["allow"] is None else (settings["allow"],)
        device = choose_device(changes.get("device", stored["device"]), processes.seat)
        here = places(stored, settings["data_dir"])
        data = _load(here, trusted, processes)
        if asdict(data.facts) != contents["data"]:
            raise DataError(_changed(path, contents["data"], asdict(data.facts)))
        begun_by = contents["progress"].get("processes", 1)
        training = Training(here | changes, data, device, trusted, contents["model"], processes, begun_by)
        training.restore(contents)
    at = training.position
    announce(training, data, output, [])
    output.log_to(Loggers(TensorBoardLogger(), registry.construct("logger", settings["logger"], {})), training.settings)
    output.note(**about(training, data))
    log.info("resumed     after epoch %d and %d batches, from %s", at.epoch, at.batch, path)
    if stored.get("logger", settings["logger"]) != settings["logger"]:
        name = str(stored["logger"].get("_target_")).rpartition(".")[2]
        log.info("logger      %s is named by the file; only one that is typed beside resume= is used", name)
    if training.schedule.total_steps != contents["scheduler"]["total_steps"]:
        log.info("schedule    rebuilt for %d epochs instead of %d", training.settings["epochs"], stored["epochs"])
    output.forget_summary()
    output.cut_metrics(at.epoch, at.step)
    _train(training, data, output, began)


def _changed(path: Path, before: dict[str, Any], now: dict[str, Any]) -> str:
    return (
        f"{path}: the data are not those that it was trained on ({_differing(before, now, 'then', 'now')}); "
        "put those back, or start a new run"
    )


def _differing(before: dict[str, Any], now: dict[str, Any], one: str = "there", other: str = "here") -> str:
    differing = [key for key in now if before.get(key) != now[key] and key != "digest"]
    what = ", ".join(f"{key} {before.get(key)} {one} and {now[key]} {other}" for key in differing)
    return what or "other images or labels"


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the checkpoint in what is wrong with it."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: its parts do not fit together: {_one_line(error)}") from error


def _train(training: Training, data: Data, output: RunDirectory, began: float) -> None:
    output.write("config.yaml", compose.to_yaml(training.settings))
    validation = None if data.validation is None else on_device(data.validation, training.device)
    with Interruption() as interruption:
        fit(training, validation, output, interruption)
    _finish(training, data, output, began)


def _finish(training: Training, data: Data, output: RunDirectory, began: float) -> None:
    """Score the selected weights on the test split, draw the final pictures and sum up."""
    settings, at = training.settings, training.position
    chosen = output.checkpoint("last" if training.best is None else "best")
    training.ema = None
    if training.processes.is_first:
        training.model.load_state_dict(checkpoint.weights(checkpoint.load(chosen)))
    training.copy_first()
    test = on_device(data.test, training.device)
    epoch, step = (at.epoch, at.step) if training.best is None else (training.best["epoch"], training.best["step"])
    numbers = evaluate(training.model, training.objective, test, settings["seed"], step, training.processes)
    training.processes.leave()
    output.metrics(epoch, step, "test", numbers)
    output.note(test=numbers, step=step)
    draw(training, test, output, None)
    if settings.get("report", True):
        output.attempt(lambda: draw_latents(training, test, output), "pictures of the latent space")
    output.note(seconds=time.monotonic() - began)
    _note(training, output)
    output.summary("completed")
    log.info("test        %s", numbers_line(numbers))
    log.info("pictures    %s, reconstructions.png", output.path / "samples.png")
    log.info("checkpoint  %s", chosen)
    if settings.get("report", True):
        log.info("report      %s", output.path / "report.html")
