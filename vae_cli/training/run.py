"""A training from its config to its summary: set up or resumed, recorded however it ends, finished."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from vae_cli.build import own_parts, parts, registry
from vae_cli.build.device import choose_device
from vae_cli.build.settings import MAY_CHANGE, check_beside_resume, check_values
from vae_cli.build.trained import with_local_folders
from vae_cli.data import Data, DataFacts
from vae_cli.data.base import difference
from vae_cli.distributed import collectives
from vae_cli.distributed.ranks import Rank
from vae_cli.errors import (
    CheckpointError,
    ConfigError,
    ConnectionLost,
    DataError,
    OutputError,
    UserError,
    describe,
)
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import evaluate
from vae_cli.evaluation.levels import relative_means
from vae_cli.loggers import Loggers, TensorBoardLogger
from vae_cli.reporting import run_page
from vae_cli.runs import checkpoint
from vae_cli.runs.config_file import to_yaml
from vae_cli.runs.directory import NullRunDirectory, OnMetrics, RunDirectory, log
from vae_cli.runs.reader import BEST, CHECKPOINTS, LAST, Run, stored_checkpoints
from vae_cli.system import threads
from vae_cli.system.paths import expand
from vae_cli.system.precision import has_bfloat16
from vae_cli.training import diagnosis
from vae_cli.training.console import announce, numbers_line, summary_facts
from vae_cli.training.loop import best_of, fit
from vae_cli.training.outcome import outcome
from vae_cli.training.pictures import write_latent_pictures, write_pictures
from vae_cli.training.signals import Interrupted, StopSignals
from vae_cli.training.state import Config, TrainingState, on_device

LARGE = 128  # draws in a step from which bfloat16 may pay
ENCODED = 10_000  # test images at most whose codes are looked at
HELD = 1 << 26  # numbers of their posteriors in memory at most
Resumed = tuple[str, dict[str, Any], Config]  # a checkpoint's path and contents, and the settings that are changed


def run(
    config: Config,
    directory: Path,
    overridden: frozenset[str] = frozenset(),
    command: str = "",
    rank: Rank | None = None,
    on_metrics: OnMetrics | None = None,
) -> int:
    """Train, or go on with the training in `directory` if the config says `resume`; then score the test split once.

    Args:
        config: the plain composed config. When resuming, only its overridden keys count; the rest is the checkpoint's.
        directory: the run directory.
        overridden: the dotted keys that the command line sets.
        command: the command line, kept in command.txt.
        rank: of this process among those that train together. Rank 0's arguments count for all.
        on_metrics: called with the epoch, split and values of every line of metrics.

    Returns:
        The exit status: 0, or 128 + the signal's number after a signal.

    Raises:
        UserError: for any mistake that a person can fix. The run directory's summary says it too.
    """
    started, rank = time.monotonic(), rank or Rank()
    threads.tune()
    opened = open_directory(config, directory, overridden) if rank.is_main else (NullRunDirectory(), None)
    if opened is None:
        collectives.broadcast(None)
        return 0
    output, resumed = opened
    output.on_metrics = on_metrics
    wants_report = (config if resumed is None else resumed[1]["config"]).get("report", True)
    try:
        with output, _recorded(output, wants_report):
            output.record_command(command)
            message = collectives.broadcast((config, sorted(overridden), str(output.path), resumed))
            if message is None:
                return 0  # rank 0 has found the run finished
            config, keys, place, resumed = message
            output.path = Path(place)
            if resumed is None:
                output.forget_summary()
                state, data = set_up(config, frozenset(keys), output, rank)
            else:
                state, data = restore(*resumed, config, output, rank)
            output.write("config.yaml", to_yaml(state.config))
            validation = None if data.validation is None else on_device(data.validation, state.device)
            with StopSignals() as signals:
                fit(state, validation, output, signals)
            finish(state, data, output, started)
    except Interrupted as stop:
        return stop.exit_status
    return 0


# Setting up and resuming


def open_directory(
    config: Config, directory: Path, overridden: frozenset[str]
) -> tuple[RunDirectory, Resumed | None] | None:
    """Return the run directory and, with `resume`, what is gone on from; None if that run is finished.

    Raises:
        UserError: if the directory holds a training already or, with `resume`, none that can go on.
    """
    if config["resume"] is None:
        if stored_checkpoints(directory):
            raise UserError(
                f"{directory} holds a training already: resume={directory} goes on with it; else choose another"
            )
        return RunDirectory(directory), None
    path, contents = last_checkpoint(directory)
    changes = resume_changes(config, overridden, directory, contents)
    if is_finished(directory, contents, changes):
        print(f"{directory} is finished after {contents['progress']['epoch']} epochs; epochs=N trains it further")
        return None
    own_parts.check(contents["config"])
    return RunDirectory(directory, contents["progress"]["step"]), (str(path), contents, changes)


def set_up(config: Config, overridden: frozenset[str], output: RunDirectory, rank: Rank) -> tuple[TrainingState, Data]:
    """Load the data, build the model and its objective, and say what is trained on what."""
    threads.use_threads(config["threads"])
    config, dropped = registry.check_groups(_with_absolute_paths(config), overridden)
    device = choose_device(config["device"], rank)
    data = load_data(config, None, rank)
    state = TrainingState(parts.with_choices(config, data.facts, rank.world_size), data, device, rank=rank)
    record_start(state, data, output, config["logger"], dropped)
    is_large, precision = state.batches.largest * config["mc_samples"] >= LARGE, config["precision"]
    if is_large and precision == "float32" and "precision" not in overridden and has_bfloat16(device):
        log.info("speed       precision=bfloat16 may be faster here: twice, with batches of 1,000")
    if precision == "bfloat16" and device.type == "cpu" and not has_bfloat16(device):
        log.info("speed       precision=float32 is much faster here: this processor has no instructions for bfloat16")
    return state, data


def restore(
    path: str, contents: dict[str, Any], changes: Config, config: Config, output: RunDirectory, rank: Rank
) -> tuple[TrainingState, Data]:
    """Build what a checkpoint describes, on this machine's data, and go back to where it was saved.

    Raises:
        CheckpointError: if its parts do not fit together.
        DataError: if the data are not those that it was trained on.
    """
    stored = contents["config"]
    try:
        check_values(stored)
        threads.use_threads(changes.get("threads", stored.get("threads")))
        trusted = () if config["allow"] is None else (config["allow"],)
        device = choose_device(changes.get("device", stored["device"]), rank)
        here = with_local_folders(stored | changes, config["data_dir"])
        data = load_data(here, trusted, rank)
        facts = {key: value for key, value in asdict(data.facts).items() if key in contents["data"]}
        if facts != contents["data"]:
            what = difference(contents["data"], facts, "then", "now")
            raise DataError(
                f"{path}: the data are not those that it was trained on ({what}); put those back, or start a new run"
            )
        processes = contents["progress"].get("processes", 1)
        state = TrainingState(here, data, device, trusted, contents["model"], rank, processes)
        state.restore(contents)
    except UserError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path}: its parts do not fit together: {describe(error)}") from error
    at = state.position
    record_start(state, data, output, config["logger"], [])
    log.info("resumed     after epoch %d and %d batches, from %s", at.epoch, at.batch, path)
    if stored.get("logger", config["logger"]) != config["logger"]:
        name = str(stored["logger"].get("_target_")).rpartition(".")[2]
        log.info("logger      %s is in the checkpoint; only a logger= beside resume= is used", name)
    if state.schedule.total_steps != contents["scheduler"]["total_steps"]:
        log.info("schedule    rebuilt for %d epochs instead of %d", state.config["epochs"], stored["epochs"])
    output.forget_summary()
    output.cut_metrics(at.epoch, at.step)
    return state, data


def record_start(state: TrainingState, data: Data, output: RunDirectory, logger: Config, dropped: list[str]) -> None:
    """Say what is trained on what, in the log, to the loggers and in the summary."""
    announce(state, data, output, dropped)
    output.log_to(Loggers(TensorBoardLogger(), registry.construct("logger", logger, {})), state.config)
    output.note(**summary_facts(state, data))


def load_data(config: Config, trusted: Collection[str] | None, rank: Rank) -> Data:
    """Return the data, the same in all processes.

    Raises:
        DataError: also if this process has other data than rank 0.
    """
    with collectives.one_process_per_machine_first(rank):
        data = parts.dataset(config, trusted).splits()
    facts = asdict(data.facts)
    main = collectives.broadcast(facts)
    if DataFacts.of(main) != data.facts:
        raise DataError(f"the data here, {difference(main, facts)}, are not those of rank 0")
    return data


def last_checkpoint(directory: Path) -> tuple[Path, dict[str, Any]]:
    """Return the path and the contents of the checkpoint in a run directory that a training goes on from.

    Raises:
        CheckpointError: if there is none, or it is damaged.
    """
    if not directory.is_dir():
        what = "is a file" if directory.exists() else "does not exist"
        raise CheckpointError(f"resume={directory} {what}; name a run directory of vae-train")
    path, best = (directory / CHECKPOINTS / name for name in (LAST, BEST))
    try:
        selected = checkpoint.load(best)["best"] if best.exists() else None
        damage = None
    except CheckpointError as error:
        selected, damage = None, error
    if not path.exists():
        hint = f"; {BEST} alone can be sampled from, not gone on with" if best.exists() else ""
        raise CheckpointError(f"resume={directory}: no {CHECKPOINTS}/{LAST} in it{hint}; name a run of vae-train")
    try:
        contents = checkpoint.load(path)
    except CheckpointError as error:
        hint = f"; {BEST} is whole and can be sampled from" if selected is not None else ""
        raise CheckpointError(f"{error}; a training goes on from no other file{hint}") from error
    if contents["optimizer"] is None:
        raise CheckpointError(f"{path}: it has weights alone, and no state of a training to go on from")
    if damage is not None:
        print(f"left aside: {damage}", file=sys.stderr, flush=True)
    # A kill between the two files, or the loss of one: epochs from here on are compared with each other.
    if contents["best"] is not None and (selected is None or selected["step"] != contents["best"]["step"]):
        if selected is None:
            print(f"{directory} has no whole {BEST}: the best epoch is chosen from here on", file=sys.stderr)
        contents["best"] = None
    return path, contents


def resume_changes(
    config: Config, overridden: frozenset[str], directory: Path, contents: dict[str, Any]
) -> dict[str, Any]:
    """Return the settings that are changed beside `resume=`.

    Raises:
        ConfigError: for a setting that may not change or that the run does not have, or fewer epochs than were trained.
    """
    check_beside_resume(overridden)
    stored = contents["config"]
    changes = {key: config[key] for key in overridden if key in MAY_CHANGE and key in config and key != "logger"}
    if changes.get("epochs") == "auto":
        del changes["epochs"]
    if "dataset.path" in overridden:
        path = config["dataset"]["path"]
        if "path" not in stored["dataset"]:
            name = contents["data"]["name"]
            raise ConfigError(
                f"dataset.path={path}: {directory} was trained on {name}, which has no path; leave it out"
            )
        changes["dataset"] = stored["dataset"] | {"path": path}
    changes = _with_absolute_paths(changes)
    done = contents["progress"]["epoch"]
    epochs = changes.get("epochs", stored["epochs"])
    if epochs < done:
        raise ConfigError(f"epochs={epochs}: {directory} has trained for {done} epochs already")
    return changes


def is_finished(directory: Path, contents: dict[str, Any], changes: Config) -> bool:
    """Return whether a run is completed and no more epochs are asked for."""
    done = contents["progress"]["epoch"]
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
        is_completed = summary["status"] == "completed" and summary["epochs"] == done
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return is_completed and changes.get("epochs", 0) <= done


def _with_absolute_paths(config: Config) -> Config:
    """Return the config with absolute paths, so that a training can be resumed from any directory."""

    def absolute(value: Any) -> Any:
        return str(expand(value).absolute()) if isinstance(value, str) else value

    config = config | {key: absolute(config[key]) for key in ("data_dir",) if key in config}
    dataset = config.get("dataset")
    if dataset is not None and str(dataset["_target_"]).startswith("vae_cli."):
        config["dataset"] = dataset | {key: absolute(dataset[key]) for key in ("path", "cache") if key in dataset}
    return config


# Recording and finishing


@contextmanager
def _recorded(output: RunDirectory, wants_report: bool) -> Iterator[None]:
    """Write the summary of a training that does not end well and the report of any, and let exceptions pass."""
    hint = "see to that, or choose another directory with hydra.run.dir="
    try:
        yield
    except (Interrupted, KeyboardInterrupt, SystemExit) as stop:
        if isinstance(stop, Interrupted):
            log.info("interrupted by %s; vae-train resume=%s goes on", stop, output.path)
        output.end("interrupted")
        raise
    except (OSError, ConnectionLost) as error:
        what = str(error)
        if isinstance(error, OSError):
            what = f"{error.filename or output.path} cannot be written ({describe(error)})"
        if stored_checkpoints(output.path):
            hint = f"vae-train resume={output.path} goes on from the last checkpoint"
        ended = (OutputError if isinstance(error, OSError) else ConnectionLost)(f"{what}; {hint}")
        output.end("failed", ended)
        raise ended from error
    except Exception as error:
        output.end("failed", error)
        raise
    finally:
        if wants_report:
            output.attempt(lambda: run_page.write(output.path, has_ended=True), run_page.NAME)
        if run_page.NAME in output.written and output.status != "failed":
            log.info("report      %s", output.path / run_page.NAME)


@torch.no_grad()
def judge(state: TrainingState, data: Data, numbers: dict[str, Any], output: RunDirectory) -> None:
    """Add the latent numbers of test images to the split's numbers, draw their codes, and warn of what is wrong."""
    model = state.model.eval()
    count = min(ENCODED, max(1, HELD // model.features_per_example))
    codes = latent_codes.encode(model, on_device(data.test, state.device).spread(count), state.config["seed"])
    relative, kl_per_dim = relative_means(model, codes.points), latent_codes.kl_per_dim(model, codes)
    if len(relative) > 1:
        numbers["active_units"] = latent_codes.active_units(relative)
    if kl_per_dim is not None:
        numbers["kl_per_dim"] = kl_per_dim.tolist()
    if state.config.get("report", True):
        output.attempt(
            lambda: write_latent_pictures(state, codes, relative, kl_per_dim, numbers, output),
            "pictures of the latent space",
        )
    records = Run(output.path, "").metrics
    for text in diagnosis.warnings(outcome(state, data, codes, kl_per_dim, numbers, output.path, records)):
        output.warn(text)
    model.train()


def finish(state: TrainingState, data: Data, output: RunDirectory, started: float) -> None:
    """Score the selected weights on the test split, draw the final pictures and write the summary."""
    config, at, best = state.config, state.position, state.best
    path = output.checkpoint("last" if best is None else "best")
    epoch, step = (at.epoch, at.step) if best is None else (best["epoch"], best["step"])
    # The selected weights, from rank 0's checkpoint
    state.ema = None
    if best is not None and state.module is not None:
        state.module.return_to_best()
    if state.rank.is_main:
        state.model.load_state_dict(checkpoint.weights(checkpoint.load(path)))
    state.broadcast_weights()
    # The test split's numbers, the only time that it is used
    test = on_device(data.test, state.device)
    numbers = evaluate(state.model, state.objective, test, config["seed"], step, state.rank)
    output.note(test=numbers, step=step)
    if state.rank.is_main:
        output.attempt(lambda: judge(state, data, numbers, output), "latent numbers and pictures")
    output.metrics(epoch, step, "test", numbers)
    # Pictures and the summary
    write_pictures(state, test, output, None, data.train)
    output.note(seconds=time.monotonic() - started, epochs=at.epoch, **best_of(state))
    output.end("completed")
    log.info("test        %s", numbers_line(numbers))
    if "active_units" in numbers:
        log.info("latents     %s of %s dimensions are active", numbers["active_units"], state.model.latent_dim)
    pictures = [name for name in ("samples.png", "reconstructions.png") if name in output.written]
    if pictures:
        log.info("pictures    %s", output.path / ", ".join(pictures))
    log.info("checkpoint  %s", path)
