"""Services that show the numbers and pictures of runs: TensorBoard, Weights & Biases, MLflow."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vae_cli.constraints import Name
from vae_cli.errors import ConfigError, describe, printable
from vae_cli.runs.directory import StepRecord
from vae_cli.runs.reader import TEST_METRICS, flat

Values = Mapping[str, Any]

log = logging.getLogger("vae_cli")

LONGEST_VALUE = 250  # characters of a hyperparameter


class Logger(ABC):
    """A service that shows runs. Its constructor takes what a person chooses; only `start` may refuse."""

    @abstractmethod
    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        """Begin, or go on with what was begun for the same directory.

        Args:
            directory: the run directory.
            settings: the plain config.
            resumed_at: the step at which an earlier training is taken up.

        Raises:
            ConfigError: if the service cannot be used.
        """

    @abstractmethod
    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        """Send the numbers of a split after a step."""

    def steps(self, records: list[StepRecord]) -> None:
        """Send the numbers of single steps: step, epoch and values of each."""
        for step, epoch, values in records:
            self.metrics("step", values, step, epoch)

    @abstractmethod
    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        """Send a picture, such as `samples`."""

    @abstractmethod
    def finish(self, status: str, test: Values | None) -> None:
        """End with a status, `completed`, `interrupted` or `failed`, and the test split's numbers if there are any."""


class NoLogger(Logger):
    """No service."""

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        pass

    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        pass

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        pass

    def finish(self, status: str, test: Values | None) -> None:
        pass


class Unusable(Exception):
    """A logger that cannot work for the rest of the run."""


class Loggers(Logger):
    """Several loggers, none of which can end a training.

    A failure is reported as a warning. A logger that fails three times in a row, takes long to fail or is `Unusable`
    receives nothing more.
    """

    MOST_FAILURES = 3  # in a row
    LONGEST_FAILURE = 10.0  # seconds

    def __init__(self, *loggers: Logger) -> None:
        self._loggers = list(loggers)
        self._failures = dict.fromkeys(map(id, loggers), 0)

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        for logger in self._loggers:
            logger.start(directory, settings, resumed_at)

    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        self._send(lambda logger: logger.metrics(split, values, step, epoch))

    def steps(self, records: list[StepRecord]) -> None:
        self._send(lambda logger: logger.steps(records))

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self._send(lambda logger: logger.picture(name, picture, step))

    def finish(self, status: str, test: Values | None) -> None:
        self._send(lambda logger: logger.finish(status, test))

    def _send(self, act: Callable[[Logger], None]) -> None:
        for logger in list(self._loggers):
            began = time.monotonic()
            try:
                act(logger)
                self._failures[id(logger)] = 0
            except Exception as error:
                self._failures[id(logger)] += 1
                is_slow = time.monotonic() - began > self.LONGEST_FAILURE
                message = describe(error)
                if isinstance(error, Unusable) or is_slow or self._failures[id(logger)] >= self.MOST_FAILURES:
                    self._loggers.remove(logger)
                    message += "; nothing more is sent there"
                name = type(logger).__name__
                log.warning("%s could not be written, the training goes on: %s", name, message)
                log.debug("traceback", exc_info=True)


class TensorBoardLogger(Logger):
    """Curves, pictures and hyperparameters in the run directory's `tensorboard/`, opened when the first arrive."""

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        self._directory, self._settings, self._resumed_at = directory, settings, resumed_at
        self._opened: Any = None

    @property
    def _board(self) -> Any:
        if self._opened is None:
            try:
                self._opened = self._open()
            except Exception as error:
                raise Unusable(f"cannot be opened: {describe(error)}") from error
        return self._opened

    def _open(self) -> Any:
        from torch.utils.tensorboard import SummaryWriter
        from torch.utils.tensorboard.summary import hparams

        purge = None if self._resumed_at is None else self._resumed_at + 1
        board: Any = SummaryWriter(str(self._directory / "tensorboard"), purge_step=purge)
        scores = {f"{split}/{name}": 0.0 for split in ("test", "validation") for name in TEST_METRICS}
        experiment, started, self._ended = hparams(_plain(self._settings), scores)
        for summary in (experiment, started):  # its scores are the curves of the same names
            board.file_writer.add_summary(summary)
        return board

    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        for name, value in values.items():
            self._board.add_scalar(f"{split}/{name}", value, step)

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self._board.add_image(name, np.atleast_3d(np.asarray(picture)), step, dataformats="HWC")

    def finish(self, status: str, test: Values | None) -> None:
        if self._opened is not None:
            if status == "completed":
                self._opened.file_writer.add_summary(self._ended)
            self._opened.close()


class WandbLogger(Logger):
    """Weights & Biases, under the run directory's name with the one above it.

    Args:
        project: where the run is listed.
        entity: whose project; None is the user's own.
        mode: `online`, `offline` (files in the run directory, for `wandb sync`) or `disabled`; None is what
            WANDB_MODE says, else online.
    """

    def __init__(
        self,
        project: Name = "vae_cli",
        entity: Name | None = None,
        mode: Literal["online", "offline", "disabled"] | None = None,
    ) -> None:
        self.project, self.entity, self.mode = project, entity, mode

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        wandb = _import("wandb")
        run_id = _stored_id(directory, "wandb")
        quiet = wandb.Settings(silent=True)
        names = {"project": self.project, "entity": self.entity, "mode": self.mode, "name": _name(directory)}
        try:
            self._run = wandb.init(
                dir=str(directory), id=run_id, resume="allow", config=settings, settings=quiet, **names
            )
            self._run.define_metric("*", step_metric="step")
        except Exception as error:
            raise ConfigError(
                f"logger=wandb cannot begin: {describe(error)}; see wandb login, or choose logger.mode=offline"
            ) from error
        self._picture = wandb.Image
        _store_id(directory, "wandb", self._run.id)

    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        self._run.log({f"{split}/{name}": value for name, value in values.items()} | {"step": step, "epoch": epoch})

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self._run.log({name: self._picture(picture), "step": step})

    def finish(self, status: str, test: Values | None) -> None:
        self._run.summary.update({"status": status} | {f"test/{name}": value for name, value in (test or {}).items()})
        self._run.finish(exit_code=0 if status == "completed" else 1)


class MLflowLogger(Logger):
    """MLflow, where MLFLOW_TRACKING_URI says, under the run directory's name with the one above it.

    Args:
        experiment_name: where the run is listed.
    """

    PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}  # its own: four minutes
    LARGEST_BATCH = 1000  # metrics that it takes at once
    STATUS = {"completed": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}

    def __init__(self, experiment_name: Name = "vae_cli") -> None:
        self.experiment_name = experiment_name

    def start(self, directory: Path, settings: dict[str, Any], resumed_at: int | None) -> None:
        for name, value in self.PATIENCE.items():
            os.environ.setdefault(name, value)
        mlflow = _import("mlflow")
        try:
            self._client = mlflow.MlflowClient()
            self._id = self._resume(directory) or self._create(directory, settings)
        except Exception as error:
            raise ConfigError(
                f"logger=mlflow cannot begin: {describe(error)}; set MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db"
            ) from error
        self._metric = mlflow.entities.Metric

    def _resume(self, directory: Path) -> str | None:
        """Return the id of the run that was begun for the same directory, if the store still has it."""
        run_id = _stored_id(directory, "mlflow")
        if run_id is None:
            return None
        try:
            self._client.update_run(run_id, status="RUNNING")
        except Exception:  # of whatever kind the store has: gone, or another store
            return None
        return run_id

    def _create(self, directory: Path, settings: dict[str, Any]) -> str:
        experiment = self._client.get_experiment_by_name(self.experiment_name)
        group = experiment.experiment_id if experiment else self._client.create_experiment(self.experiment_name)
        run = self._client.create_run(group, run_name=_name(directory))
        for name, value in _plain(settings).items():
            self._client.log_param(run.info.run_id, name, value)
        _store_id(directory, "mlflow", run.info.run_id)
        return run.info.run_id

    def metrics(self, split: str, values: Values, step: int, epoch: int) -> None:
        self._client.log_batch(self._id, metrics=self._metrics(split, values, step))

    def steps(self, records: list[StepRecord]) -> None:
        metrics = [metric for step, _, values in records for metric in self._metrics("step", values, step)]
        for start in range(0, len(metrics), self.LARGEST_BATCH):
            self._client.log_batch(self._id, metrics=metrics[start : start + self.LARGEST_BATCH])

    def _metrics(self, split: str, values: Values, step: int) -> list[Any]:
        now = int(time.time() * 1000)
        return [
            self._metric(f"{split}/{name}", float(value), now, step)
            for name, value in values.items()
            if isinstance(value, (int, float)) and math.isfinite(value)
        ]

    def picture(self, name: str, picture: Image.Image, step: int) -> None:
        self._client.log_image(self._id, picture, artifact_file=f"{name}/step_{step:08d}.png")

    def finish(self, status: str, test: Values | None) -> None:
        self._client.set_terminated(self._id, self.STATUS[status])


def _name(directory: Path) -> str:
    """Return a run's name in a list of many: its directory's, with that above, which a sweep's jobs have in common."""
    return "/".join(directory.absolute().parts[-2:])


def _import(name: str) -> Any:
    """Import a package that is an extra.

    Raises:
        ConfigError: if it is not installed.
    """
    import importlib

    try:
        return importlib.import_module(name)
    except Exception as error:  # of an installation that is half there, too
        raise ConfigError(
            f"logger={name} needs a package that is not installed: pip install {name} ({describe(error)})"
        ) from error


def _plain(settings: Mapping[str, Any]) -> dict[str, str | int | float | bool]:
    """Return settings under dotted keys, with values that hyperparameters may have."""
    return {
        key: value if isinstance(value, (bool, int, float)) else printable(value)[:LONGEST_VALUE]
        for key, value in flat(settings)
    }


def _stored_id(directory: Path, service: str) -> str | None:
    """Return the id that a service gave to the run of a directory, if logger.json has it."""
    with suppress(OSError, ValueError, AttributeError):
        run_id = json.loads((directory / "logger.json").read_text(encoding="utf-8")).get(service)
        return run_id if isinstance(run_id, str) else None
    return None


def _store_id(directory: Path, service: str, run_id: str) -> None:
    with suppress(OSError):  # then a resumed run is listed anew
        (directory / "logger.json").write_text(json.dumps({service: run_id}) + "\n", encoding="utf-8")
