"""All that changes while a model is trained: what a checkpoint saves and a resumed run restores."""

from __future__ import annotations

import logging
import math
import os
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.build import parts
from vae_cli.data import Data, Split
from vae_cli.data.batches import Batch, Batches, moments
from vae_cli.distributed.processes import ALONE, Processes
from vae_cli.errors import ConfigError, UserError
from vae_cli.evaluation.totals import Totals
from vae_cli.models.vae import VAE
from vae_cli.objectives import Sums
from vae_cli.runs import checkpoint
from vae_cli.runs.directory import log
from vae_cli.system import memory
from vae_cli.system.cache import cache_dir
from vae_cli.training.ema import EMA

VALUES_PER_OUTPUT = 3  # the decoder's output, its log-density and the gradient are in memory together
PATIENCE = 20  # steps in a row that may fail before the run does

_ABOUT_THE_DEVICE = {"fused", "foreach", "capturable"}  # flags of an optimizer that a checkpoint must not bring along

Config = dict[str, Any]


class TrainingError(UserError):
    """The training diverged."""


@dataclass
class Position:
    """Where a training stands: `batch` batches into epoch number `epoch`, counted from 0, after `step` steps; a batch
    being `processes` times `batch_size` images."""

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    processes: int = 1


class Guard:
    """Keeps losses and gradients that are not finite away from the weights, and counts them on the device."""

    def __init__(self, device: torch.device) -> None:
        self.skipped, self.streak, self.longest = torch.zeros(3, dtype=torch.int64, device=device).unbind()

    def record(self, finite: Tensor | bool) -> None:
        if finite is True and not self.streak:
            return
        failed = torch.as_tensor(finite, device=self.streak.device).logical_not().long()
        self.skipped += failed
        self.streak.add_(failed).mul_(failed)
        torch.maximum(self.longest, self.streak, out=self.longest)

    def check(self, step: int, last: Path) -> None:
        """Look, which waits for the device, and end the training if too many steps in a row were kept away."""
        if int(self.longest) >= PATIENCE:
            raise TrainingError(
                f"the loss or its gradient was not finite {PATIENCE} steps in a row, up to step {step}: try a smaller "
                f"optimizer.lr, clip_grad_norm=100 or precision=float32; the last good weights are in {last}"
            )


class Training:
    """All that changes while a model is trained, and the plain data it is saved as.

    Args:
        settings: the plain config.
        data: to train on.
        device: of this process.
        trusted: see `registry.resolve`.
        weights: that the model will be given.
        processes: that train it together.
        begun_by: the number of processes that began it, whose batches make up one batch; None if these do.
    """

    def __init__(
        self,
        settings: Config,
        data: Data,
        device: torch.device,
        trusted: Collection[str] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        processes: Processes = ALONE,
        begun_by: int | None = None,
    ) -> None:
        self.settings, self.facts, self.device, self.processes = settings, data.facts, device, processes
        self.position = Position(processes=begun_by or processes.count)
        batch_size = settings["batch_size"] * self.position.processes
        train = on_device(data.train, device)
        self.batches = Batches(train, batch_size, settings["seed"], device, processes.rank, processes.count)
        _seed_everything(noise.key(settings["seed"], "weights"))
        self.model = parts.model(settings, data.facts, trusted, weights)
        if settings["init_output_bias"]:
            _start_at_mean(self.model, data.train)
        _start_at_images(self.model, data.train)
        _check_memory(self.model, settings, self.batches.largest, device)
        self.model.to(device)
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.objective = parts.objective(settings, self.model, data.facts, len(self.batches), trusted, processes)
        self._compiled = self._compile() if settings["compile"] else self._loss
        self.optimizer = parts.optimizer(settings, self.model, trusted)
        self.schedule = parts.schedule(settings, len(self.batches), trusted)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = None if settings["ema_decay"] is None else EMA(self.model, settings["ema_decay"])
        self.best: dict[str, Any] | None = None
        self.totals = Totals(device)
        self.guard = Guard(device)
        _seed_everything(noise.key(settings["seed"], "training", *self._apart()))

    def _apart(self) -> list[int]:
        """What keeps the streams that a network might draw from apart from the other processes'."""
        return [] if self.processes.is_first else [self.processes.rank, self.position.step]

    def noise(self, images: int, epoch: int, number: int) -> Tensor:
        """Base noise (K, B, D) of this process's images in one batch: a function of the seed, the batch's place and
        theirs in it."""
        stream = noise.generator(self.settings["seed"], "noise", epoch, number, device=self.device)
        alone = self.processes.count == 1
        whole = images if alone else self.batches.size(number)
        shape = (self.objective.mc_samples, whole, self.objective.noise_dim(self.model))
        drawn = torch.randn(shape, generator=stream, device=self.device)
        return drawn if alone else drawn[:, self.batches.part(number)]

    def bound(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Sums]:
        """Return the objective's loss on one batch and the sums to report: compiled with `compile=true`, except for the
        short batch that ends an epoch."""
        is_whole = len(batch[0]) == self.batches.whole
        return (self._compiled if is_whole else self._loss)(batch, noise, self.position.step)

    def _loss(self, batch: Batch, noise: Tensor, step: int | Tensor) -> tuple[Tensor, Sums]:
        bound = self.objective(self.model, batch, noise, step)
        return bound.loss, bound.sums()

    def _compile(self) -> Callable[[Batch, Tensor, int], tuple[Tensor, Sums]]:
        """The objective with all that it asks of the model in few kernels, and on a GPU in one launch."""
        from torch._dynamo.exc import TorchDynamoException

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it says that there is no GPU
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
        compiled = torch.compile(self._loss, mode="reduce-overhead" if self.device.type == "cuda" else None)

        def call(batch: Batch, noise: Tensor, step: int) -> tuple[Tensor, Sums]:
            try:
                return compiled(batch, noise, torch.full((), float(step), device=self.device))
            except TorchDynamoException as error:
                why = " ".join(str(error).partition("Set TORCHDYNAMO")[0].split())[:200].rstrip(" ;")
                needs = ": install a C++ compiler such as g++" if "CxxCompiler" in why else ""
                raise ConfigError(f"compile=true fails here ({why}){needs}; compile=false trains without") from error

        return call

    def descend(self, bound: tuple[Tensor, Sums]) -> None:
        """Step the optimizer along the gradients that the loss left in all processes, if all of them are finite."""
        loss, sums = bound[0].detach(), bound[1]
        if self.processes.count > 1:
            images, values = self._pooled(sums.values)
            sums, loss = replace(sums, values=values, images=images), values[-1]
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * self.schedule(self.position.step)
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = _total_norm(gradients)
        finite = math.isfinite(loss + norm) if self.device.type == "cpu" else (loss + norm).isfinite()
        if self.settings["clip_grad_norm"] is not None:
            torch.nn.utils.clip_grads_with_norm_(self.parameters, self.settings["clip_grad_norm"], norm)
        if isinstance(finite, Tensor):
            # Asking the device would stall it: the step is taken along zeros, with what momentum is left.
            for gradient in gradients:
                gradient.masked_fill_(~finite, 0)
        if finite is not False:
            self.optimizer.step()
        for parameter in self.parameters:
            parameter.grad = None
        self.position.step += 1
        if self.ema is not None:
            self.ema.update(self.position.step)
        self.totals.add(sums, finite)
        self.guard.record(finite)

    def _pooled(self, sums: Tensor) -> tuple[int, Tensor]:
        """The images of the whole batch, and their sums; gradients and running means become the whole batch's too."""
        number, likelihood = self.position.batch, self.model.likelihood
        weight = self.batches.weight(number)
        running = getattr(likelihood, "running", None)
        if running is None:
            return self.batches.size(number), self.processes.pool(self.parameters, sums, weight)
        *pooled, mean = self.processes.pool(self.parameters, torch.stack([*sums, weight * running]), weight)
        likelihood.running = mean
        return self.batches.size(number), torch.stack(pooled)

    def copy_buffers(self) -> None:
        """Let all processes judge with the first one's buffers, which a network of one's own may change by itself."""
        self.processes.copy_first(self.model.buffers())

    def copy_first(self) -> None:
        """Let all processes start from the weights of the first."""
        averages = {} if self.ema is None else self.ema.state_dict()
        self.processes.copy_first([*self.model.state_dict().values(), *averages.values()])

    def contents(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        guard = {"skipped": int(self.guard.skipped), "streak": int(self.guard.streak)}
        counts = {"totals": self.totals.state_dict()} | guard
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": {"rates": self.rates, "total_steps": self.schedule.total_steps},
            "progress": asdict(self.position) | counts,
            "random": checkpoint.random_state(self.device),
            "best": self.best,
            "config": self.settings,
            "data": asdict(self.facts),
            "version": checkpoint.VERSION,
        }

    def restore(self, contents: dict[str, Any]) -> None:
        """Go back to where `contents` found a training of the same settings.

        Raises:
            ValueError, KeyError, RuntimeError: if they are not of such a training.
        """
        progress = dict(contents["progress"])
        self.model.load_state_dict(contents["model"])
        built = [{key: group[key] for key in _ABOUT_THE_DEVICE & group.keys()} for group in self.optimizer.param_groups]
        _check_optimizer(self.optimizer, contents["optimizer"])
        self.optimizer.load_state_dict(contents["optimizer"])
        for group, flags in zip(self.optimizer.param_groups, built):
            group.update(flags)
        if self.ema is not None:
            self.ema.load_state_dict(contents["ema"])
        self.totals.load_state_dict(progress.pop("totals"))
        self.guard.skipped.fill_(progress.pop("skipped"))
        self.guard.streak.fill_(progress.pop("streak"))
        self.position = Position(**progress)
        self.best = contents["best"]
        checkpoint.restore_random_state(contents["random"], self.device)
        if not self.processes.is_first:
            _seed_everything(noise.key(self.settings["seed"], "training", *self._apart()))

    def save(self, path: Path, *more: Path) -> None:
        """Write a checkpoint, and the same to `more` paths, unless the weights have been ruined; of several processes
        the first does.

        Raises:
            TrainingError: if a weight is not finite.
        """
        if not all(bool(v.isfinite().all()) for v in self.model.state_dict().values() if v.is_floating_point()):
            raise TrainingError(
                f"a weight is no longer finite after step {self.position.step}: try a smaller optimizer.lr or "
                f"clip_grad_norm=100; the last good weights are in {path.parent / 'last.pt'}"
            )
        if self.processes.is_first:
            checkpoint.save(path, self.contents())
            for other in more:
                checkpoint.copy(path, other)

    @contextmanager
    def evaluated(self) -> Iterator[VAE]:
        """The model with the weights to be judged by: the averaged ones where an average is kept."""
        with nullcontext() if self.ema is None else self.ema.applied():
            yield self.model


def _total_norm(gradients: Sequence[Tensor]) -> Tensor:
    """The Euclidean norm of all gradients together."""
    if gradients[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(gradients)
    # On a CPU three times as fast as the norm of norms.
    flat = [gradient.flatten() for gradient in gradients]
    return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sum().sqrt()


def _check_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Hold a stored state, which torch takes as it comes, against the optimizer it is for.

    Raises:
        ValueError: if it has other settings, or values that do not go with their parameters.
    """
    for built, stored in zip(optimizer.param_groups, state["param_groups"], strict=True):
        for key, value in built.items():
            like = type(stored[key]) is type(value) or None in (stored[key], value)
            if key != "params" and not (like or isinstance(value, float) and isinstance(stored[key], int)):
                raise ValueError(f"the optimizer's {key} is {str(type(stored[key]).__name__)}")
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, values in state["state"].items():
        for name, value in values.items():
            fits = isinstance(value, Tensor) and value.shape in (parameters[number].shape, torch.Size())
            if not (fits or value is None or isinstance(value, (int, float))):
                raise ValueError(f"the optimizer's {name} of parameter {number} does not go with it")


def _check_memory(model: VAE, settings: Config, batch_size: int, device: torch.device) -> None:
    """Refuse draws whose decoded images alone, with their densities and gradients, have no room."""
    values = settings["mc_samples"] * batch_size * math.prod(model.likelihood.output_shape)
    needed = 4 * VALUES_PER_OUTPUT * values
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()
    if needed > free:
        raise ConfigError(
            f"mc_samples={settings['mc_samples']} with batches of {batch_size} images takes at least "
            f"{memory.shown(needed)} a step, of which {memory.shown(free)} are free; choose fewer"
        )


def _seed_everything(seed: int) -> None:
    """Start every stream that a network might draw from; the program itself draws from none of them."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def on_device(split: Split, device: torch.device) -> Split:
    """The split in the device's memory if it takes less than half of what is free there, else where it is."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if len(split) * split.image_bytes > free / 2:
            return split
    return split.to(device)


def _start_at_images(model: VAE, split: Split) -> None:
    """Let a prior that is made of images start at training images, spread evenly over the set."""
    if wanted := model.prior.starting_images:
        chosen = torch.linspace(0, len(split) - 1, wanted, dtype=torch.float64).long()
        model.prior.start_at(split.select(chosen).float() / split.scale)


def _start_at_mean(model: VAE, split: Split) -> None:
    """Let the decoder's output start at what describes the mean training image."""
    output = model.likelihood.start_at(*moments(split))
    start_at = getattr(model.decoder, "start_at", None)
    if callable(start_at):
        start_at(output)
    else:
        name = type(getattr(model.decoder, "network", model.decoder)).__name__
        log.info("decoder     %s has no start_at(output): its output bias stays as built", name)
