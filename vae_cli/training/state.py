"""All that changes while a model is trained: what a checkpoint saves and a resumed run restores."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vae_cli import noise
from vae_cli.build import parts
from vae_cli.data import Data, Split
from vae_cli.data.batches import Batch, Batches
from vae_cli.distributed import collectives
from vae_cli.distributed.ranks import Rank
from vae_cli.errors import ConfigError, TrainingError
from vae_cli.evaluation.bounds import batch
from vae_cli.evaluation.totals import Totals
from vae_cli.models import Model
from vae_cli.objectives import Sums
from vae_cli.runs import checkpoint
from vae_cli.system import memory
from vae_cli.system.cache import cache_dir
from vae_cli.training import optimizer_state
from vae_cli.training.ema import EMA
from vae_cli.training.initialization import measure, seed_everything, start_at_mean_image, start_at_training_images
from vae_cli.training.objective_module import ObjectiveModule
from vae_cli.training.step import SkippedSteps
from vae_cli.training.step_log import StepLog

FITTED = 2000  # training images that a running scale is fitted to
VALUES_PER_OUTPUT = 3  # the decoder's output, its log-density and the gradient are in memory together

Config = dict[str, Any]


@dataclass
class Position:
    """The place of a training: `batch` batches into epoch number `epoch`, counted from 0, after `step` steps.

    A batch has `processes` times `batch_size` images.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    seconds: float = 0.0
    processes: int = 1


class TrainingState:
    """The model, its optimizer and everything else that a training changes.

    Args:
        config: the plain config.
        data: the data to train on.
        device: of this process.
        trusted: see `build.registry.resolve`.
        weights: weights that the model will be given; None draws them.
        rank: of this process among those that train together.
        processes: how many processes began this training, whose batches make up one batch; None for these.
    """

    def __init__(
        self,
        config: Config,
        data: Data,
        device: torch.device,
        trusted: Collection[str] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        rank: Rank | None = None,
        processes: int | None = None,
    ) -> None:
        self.config, self.facts, self.device, self.rank = config, data.facts, device, rank or Rank()
        self.position = Position(processes=processes or self.rank.world_size)
        batch_size = config["batch_size"] * self.position.processes
        split, seed = on_device(data.train, device), config["seed"]
        self.batches = Batches(split, batch_size, seed, device, self.rank.rank, self.rank.world_size)
        # The model and its starting point, on the CPU, so that every device starts from the same weights
        seed_everything(noise.key(seed, "weights"))
        self.model = parts.model(config, data.facts, trusted, weights)
        if weights is None:
            measure(self.model, data.train, data.facts.standardize)
            if config["init_output_bias"]:
                start_at_mean_image(self.model, data.train, seed)
            start_at_training_images(self.model, data.train)
        _check_memory(self.model, config, self.batches.largest, device)
        self.model.to(device)
        # What follows its gradient
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        steps, world_size = len(self.batches), self.rank.world_size
        seed_everything(noise.key(seed, "objective"))
        self.objective = parts.objective(config, self.model, data.facts, steps, trusted, world_size)
        self.module = None if self.objective.module is None else ObjectiveModule(self.objective, device)
        self._compiled = self._compile() if config["compile"] else self._loss
        self.optimizer = parts.optimizer(config, self.model, trusted)
        self.schedule = parts.schedule(config, steps, trusted)
        self.rates = [group["lr"] for group in self.optimizer.param_groups]
        self.ema = None if config["ema_decay"] is None else EMA(self.model, config["ema_decay"])
        # What is counted
        self.best: dict[str, Any] | None = None
        self.totals = Totals(device)
        self.skipped = SkippedSteps(device)
        self.step_log = StepLog(steps * config["epochs"])
        self.rows = 0  # of epochs that were printed
        self._seed_networks()

    def _seed_networks(self) -> None:
        """Seed the streams that a network might draw from, apart from those of the other processes."""
        own = [] if self.rank.is_main else [self.rank.rank, self.position.step]
        seed_everything(noise.key(self.config["seed"], "training", *own))

    def noise(self, images: int, epoch: int, batch: int) -> Tensor:
        """Return base noise (K, B, D) for this process's images of one batch.

        It is a function of the seed, the batch's place and the images' places in the whole batch.
        """
        stream = noise.generator(self.config["seed"], "noise", epoch, batch, device=self.device)
        is_alone = self.rank.world_size == 1
        size = images if is_alone else self.batches.size(batch)
        shape = (self.objective.mc_samples, size, self.objective.noise_dim(self.model))
        values = torch.randn(shape, generator=stream, device=self.device)
        return values if is_alone else values[:, self.batches.part(batch)]

    def loss(self, batch: Batch, noise: Tensor) -> tuple[Tensor, Sums]:
        """Return the loss on one batch, with that of the objective's own module, and the sums to report.

        With `compile=true` it is compiled, but not for the short batch that ends an epoch.
        """
        if not self.rank.is_main:  # whose stream is in no checkpoint
            self._seed_networks()
        is_whole = len(batch[0]) == self.batches.whole
        return (self._compiled if is_whole else self._loss)(batch, noise, self.position.step)

    def _loss(self, batch: Batch, noise: Tensor, step: int | Tensor) -> tuple[Tensor, Sums]:
        bound = self.objective(self.model, batch, noise, step)
        return bound.loss if bound.module_loss is None else bound.loss + bound.module_loss, bound.sums()

    def _compile(self) -> Callable[[Batch, Tensor, int], tuple[Tensor, Sums]]:
        """Return the objective with all that it asks of the model in few kernels, and on a GPU in one launch."""
        from torch._dynamo.exc import TorchDynamoException

        logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # it says that there is no GPU
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_dir() / "compiled"))
        compiled = torch.compile(self._loss, mode="reduce-overhead" if self.device.type == "cuda" else None)

        def compute(batch: Batch, noise: Tensor, step: int) -> tuple[Tensor, Sums]:
            try:
                return compiled(batch, noise, torch.full((), float(step), device=self.device))
            except TorchDynamoException as error:
                why = " ".join(str(error).partition("Set TORCHDYNAMO")[0].split())[:200].rstrip(" ;")
                needs = ": install a C++ compiler such as g++" if "CxxCompiler" in why else ""
                raise ConfigError(f"compile=true fails here ({why}){needs}; compile=false trains without") from error

        return compute

    def all_reduce(self, loss: Tensor, sums: Sums) -> tuple[Tensor, Sums]:
        """Return the loss and the sums of the whole batch, and share the gradients among the processes.

        With several processes the gradients, and a likelihood's running scale, become those of the whole batch.
        """
        if self.rank.world_size == 1:
            return loss.detach(), sums
        number, likelihood = self.position.batch, self.model.likelihood
        weight, values = self.batches.weight(number), sums.values
        parameters = self.parameters if self.module is None else [*self.parameters, *self.module.parameters]
        if likelihood.running is None:
            values = collectives.all_reduce_gradients(parameters, values, weight)
        else:
            message = torch.stack([*values, weight * likelihood.running])
            *reduced, likelihood.running = collectives.all_reduce_gradients(parameters, message, weight)
            values = torch.stack(reduced)
        return values[-1], replace(sums, values=values, images=self.batches.size(number))

    @torch.no_grad()
    def fit_scale(self) -> None:
        """Give a likelihood with a running scale the one that fits training images at the weights as they are now."""
        if self.model.likelihood.running is None:
            return
        some, seed, squares = self.batches.split.spread(FITTED), self.config["seed"], []
        with self.averaged_weights() as model:
            model.eval()
            for start in range(0, len(some), noise.BLOCK):
                index = slice(start, min(start + noise.BLOCK, len(some)))
                x, y = batch(model, some, index, seed)
                drawn = noise.by_image(len(x), 1, model.noise_dim, seed, "scale", start=start)
                (z,), _ = model.encode(x, y).rsample_and_log_prob(drawn.to(x))
                squares.append((model.decode(z, y).mean - x).square().flatten(1).mean(1))
            model.train()
        self.model.likelihood.running = torch.cat(squares).mean()

    def broadcast_buffers(self) -> None:
        """Give all processes rank 0's buffers, which a network of one's own may change by itself."""
        own = () if self.module is None else self.module.buffers
        collectives.broadcast_tensors([*self.model.buffers(), *own])

    def broadcast_weights(self) -> None:
        """Give all processes rank 0's weights and averages."""
        averages = {} if self.ema is None else self.ema.state_dict()
        own = {} if self.module is None else self.module.weights()
        collectives.broadcast_tensors([*self.model.state_dict().values(), *averages.values(), *own.values()])

    @contextmanager
    def averaged_weights(self) -> Iterator[Model]:
        """Give the model the weights it is judged by inside the block: the averaged ones where an average is kept."""
        with nullcontext() if self.ema is None else self.ema.applied():
            yield self.model

    # Checkpoints

    def contents(self) -> dict[str, Any]:
        """Return what a checkpoint holds."""
        skipped = {"skipped": int(self.skipped.total), "streak": int(self.skipped.streak)}
        return {
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "module": None if self.module is None else self.module.contents(),
            "scheduler": {"rates": self.rates, "total_steps": self.schedule.total_steps},
            "progress": asdict(self.position) | {"totals": self.totals.state_dict()} | skipped,
            "random": checkpoint.random_state(self.device),
            "best": self.best,
            "config": self.config,
            "data": asdict(self.facts),
            "version": checkpoint.VERSION,
        }

    def restore(self, contents: dict[str, Any]) -> None:
        """Go back to where `contents` was saved by a training of the same config.

        Raises:
            ValueError, KeyError, RuntimeError: if the contents are not of such a training.
        """
        progress = dict(contents["progress"])
        self.model.load_state_dict(contents["model"])
        optimizer_state.restore(self.optimizer, contents["optimizer"])
        if self.module is not None:
            self.module.restore(contents["module"])
        elif contents["module"] is not None:
            raise ValueError("it has the state of a module, and its objective has none")
        if self.ema is not None:
            self.ema.load_state_dict(contents["ema"])
        self.totals.load_state_dict(progress.pop("totals"))
        self.skipped.total.fill_(progress.pop("skipped"))
        self.skipped.streak.fill_(progress.pop("streak"))
        self.position = Position(**progress)
        self.best = contents["best"]
        checkpoint.restore_random_state(contents["random"], self.device)

    def save(self, last: Path, best: Path | None = None) -> None:
        """Write a checkpoint to go on from and, before it, the weights alone. Of several processes rank 0 writes.

        A process that is killed between the two finds the best weights again when it goes on.

        Raises:
            TrainingError: if a weight is not finite.
        """
        own = {} if self.module is None else self.module.weights()
        weights = [*self.model.state_dict().values(), *own.values()]
        if not all(bool(v.isfinite().all()) for v in weights if v.is_floating_point()):
            raise TrainingError(
                f"a weight is no longer finite after step {self.position.step}: try a smaller optimizer.lr or "
                f"clip_grad_norm=100; the last good weights are in {last}"
            )
        if best is not None and self.module is not None:
            self.module.keep_best()
        if self.rank.is_main:
            contents = self.contents()
            if best is not None:
                checkpoint.save_weights(best, contents)
            checkpoint.save(last, contents)


def on_device(split: Split, device: torch.device) -> Split:
    """Return the split in the device's memory if it takes less than half of what is free there, else where it is."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        if len(split) * split.image_bytes > free / 2:
            return split
    return split.to(device)


def _check_memory(model: Model, config: Config, batch_size: int, device: torch.device) -> None:
    """Refuse draws whose decoded images alone, with their densities and gradients, do not fit into memory."""
    outputs = config["mc_samples"] * batch_size * math.prod(model.likelihood.output_shape)
    needed = 4 * VALUES_PER_OUTPUT * outputs
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else memory.available()
    if needed > free:
        raise ConfigError(
            f"mc_samples={config['mc_samples']} with batches of {batch_size} takes at least "
            f"{memory.format_size(needed)} a step, of which {memory.format_size(free)} are free; choose fewer"
        )
