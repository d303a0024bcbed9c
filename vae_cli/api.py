"""The interface for Python code; `import vae_cli` brings it along without importing torch."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vae_cli.errors import ConfigError
from vae_cli.runs.reader import Run

if TYPE_CHECKING:
    from vae_cli.inference.trained_model import TrainedModel

AnyPath = str | os.PathLike[str]


def load(path: AnyPath, device: Any = "auto", allow: str | None = None, **parts: Any) -> TrainedModel:
    """Return a trained model, ready to be used.

    Args:
        path: a run directory (then its best checkpoint, else its last), a checkpoint file, or `hf://owner/name`.
        device: auto, cpu, cuda, cuda:1 or mps.
        allow: a package besides vae_cli that the file's config may build classes from.
        parts: those that `train` was given: encoder=, decoder=, posterior=, prior= or likelihood=.

    Raises:
        CheckpointError: if there is no checkpoint, or it is damaged.
        ConfigError: if its config names classes of another package, a part is missing, or the device is.
    """
    from vae_cli.build import own_parts, trained
    from vae_cli.build.settings import RULES
    from vae_cli.constraints import check_value
    from vae_cli.inference.trained_model import TrainedModel
    from vae_cli.runs import checkpoint

    own_parts.check_names(parts, ("device", "allow"), "vae_cli.load")
    check_value("device", str(device), RULES["device"])
    check_value("allow", allow, RULES["allow"])
    file = checkpoint.find(os.fspath(path))
    with own_parts.passing(parts):
        return TrainedModel(trained.load(file, str(device), allow, mapped=False), file)


@dataclass(frozen=True, repr=False)
class TrainedRun(Run):
    """A run that `train` has ended: its `directory`, `summary`, `metrics` (a line per epoch and split), `settings`,
    `status` and `warnings`, and its model with `load()`."""

    parts: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"TrainedRun({str(self.path)!r}, {self.status})"

    @property
    def directory(self) -> Path:
        """The run directory."""
        return self.path

    def __fspath__(self) -> str:
        return str(self.path)

    def load(self, device: Any = "auto") -> TrainedModel:
        """Return the trained model: of the best epoch, else of the last."""
        return load(self.path, device, **self.parts)


def train(*settings: str, directory: AnyPath | None = None, resume: AnyPath | None = None, **parts: Any) -> TrainedRun:
    """Train a model as `vae-train` does with the same settings, and return the run.

    Ctrl-C, or the stop button of a notebook, ends it after the step with a checkpoint: `resume=` goes on.

    Args:
        settings: such as `"dataset=mnist"`, `"latent_dim=16"`.
        directory: of the run; by default outputs/DATASET/DATE_TIME.
        resume: the directory of a run to go on with.
        parts: of one's own, by their groups: dataset=, encoder=, decoder=, posterior=, prior=, likelihood= or
            objective=. A class is given the sizes that its constructor asks for; an object is taken as it is, of a
            module a copy. dataset= also takes an array, or several by their names in an .npz file, and a data
            frame; with keys as `vae_cli.data.Frame(frame, label="income")`.

    Raises:
        UserError: for any mistake that a person can fix.
        KeyboardInterrupt: after Ctrl-C; its message says how to go on.
    """
    from vae_cli.build import own_parts
    from vae_cli.config.command_line import read_command_line
    from vae_cli.config.launch import launch
    from vae_cli.system.threads import restored_threads

    own_parts.check_names(parts, ("directory", "resume"), "vae_cli.train")
    _check_words(settings, directory, resume, parts)
    parts = dict(parts)
    if "dataset" in parts:
        parts["dataset"] = _as_dataset(parts["dataset"])
    words = _words(settings, directory, resume, parts)
    nodes = {group: own_parts.node(part) for group, part in parts.items()}
    directories: list[Path] = []

    def job(config: dict[str, Any], folder: Path, overridden: frozenset[str], _: str) -> int:
        from vae_cli.training.run import run

        directories.append(folder)
        return run(config | nodes, folder, overridden, _call(settings, folder, resume, parts))

    def check(config: dict[str, Any], overridden: frozenset[str]) -> None:
        from vae_cli.build.registry import check_groups

        check_groups(config | nodes, overridden)

    with own_parts.passing(parts), restored_threads(), _restored_streams():
        status = launch(read_command_line(words), job, check)
    run = TrainedRun(directories[0], directories[0].name, has_ended=True, parts=parts)
    if status:
        _stop(status - 128, run)
    return run


def _check_words(settings: tuple[Any, ...], directory: Any, resume: Any, parts: Mapping[str, Any]) -> None:
    """Refuse what is no setting, and what is said twice."""
    for word in settings:
        is_setting = isinstance(word, str) and not word.startswith("-") and ("=" in word or word.startswith("~"))
        if not is_setting or word == "hydra.mode=MULTIRUN":
            raise ConfigError(f"{word!r} is no setting of one run, such as 'latent_dim=16'; vae-train -m sweeps")
        key = word.lstrip("+~").partition("=")[0]
        if (group := key.partition(".")[0]) in parts:
            raise ConfigError(f"{word}: {group}= is a part of your own; set {key} there")
        for name, value in (("directory", directory), ("resume", resume)):
            if value is not None and key == {"directory": "hydra.run.dir"}.get(name, name):
                raise ConfigError(f"{word}: {name}= says where already; leave one out")
    if directory is not None and resume is not None:
        raise ConfigError("directory= and resume=: a run goes on in its own directory; leave one out")


def _as_dataset(dataset: Any) -> Any:
    """Return arrays and data frames as a data set, and anything else as it is."""
    from vae_cli.data import Frame, InMemory

    if hasattr(dataset, "columns") and hasattr(dataset, "iloc"):
        return Frame(dataset)
    return InMemory(dataset) if isinstance(dataset, Mapping) or hasattr(dataset, "__array__") else dataset


def _words(settings: tuple[str, ...], directory: Any, resume: Any, parts: Mapping[str, Any]) -> list[str]:
    """Return the command line of a training."""
    if resume is not None:
        return [*settings, f"resume={os.fspath(resume)}"]
    if directory is not None:
        return [*settings, f"hydra.run.dir={os.fspath(directory)}"]
    has_directory = any(word.startswith("hydra.run.dir=") for word in settings)
    if "dataset" in parts and not has_directory:  # which no option names
        from vae_cli.data.base import name_of

        return [*settings, f"hydra.run.dir=outputs/{name_of(parts['dataset'])}/${{now:%Y-%m-%d_%H-%M-%S-%f}}"]
    return [*settings]


def _call(settings: tuple[str, ...], directory: Path, resume: Any, parts: Mapping[str, Any]) -> str:
    """Return the call that trains, for command.txt."""
    place = f"{'directory' if resume is None else 'resume'}={str(directory)!r}"
    return f"vae_cli.train({', '.join([*map(repr, settings), place, *(f'{group}=…' for group in parts)])})"


@contextmanager
def _restored_streams() -> Iterator[None]:
    """Put the random streams of Python, numpy and torch back at the end: a training seeds them for its networks."""
    import random

    import numpy as np
    import torch

    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)


def _stop(number: int, run: TrainedRun) -> NoReturn:
    """End as after a signal, which the training has caught and obeyed."""
    if number != signal.SIGINT:
        signal.raise_signal(number)
    raise KeyboardInterrupt(f"{_call((), run.directory, run.directory, run.parts)} goes on")
