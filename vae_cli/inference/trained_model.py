"""A trained model as Python code uses it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution

from vae_cli.build.settings import RULES
from vae_cli.build.trained import Trained
from vae_cli.constraints import Count, check_value
from vae_cli.data import Split
from vae_cli.data.columns import as_values
from vae_cli.distributions import LatentDistribution
from vae_cli.errors import DataError, OutputError, UserError, describe, printable
from vae_cli.evaluation.bounds import Scores, score, values_at_once
from vae_cli.generation.samplers import Sampler, class_labels, generate_images
from vae_cli.inference.chunked import ChunkedPosterior
from vae_cli.inference.codes import Chunk, chunks, reconstructions
from vae_cli.inference.examples import as_examples
from vae_cli.inference.labels import labels_of
from vae_cli.models import Hierarchy
from vae_cli.runs import checkpoint
from vae_cli.system import memory
from vae_cli.system.paths import expand

DRAWS = 1000  # of z per example, as vae-evaluate has them by default
TOGETHER = 256  # images decoded together


class TrainedModel:
    """A trained model, in evaluation mode on its device; `vae_cli.load` returns it.

    Examples `x` are tensors, arrays or PIL images, or lists of them: bytes (0 … 255), floats in [0, 1] or bool. A model
    of binary pixels makes gray ones black and white; it takes bytes of 0 and 1 if its data were such bytes. A model of
    a table takes data frames with its columns, and vectors, NaN where a value is missing. Latent
    vectors `z` are (…, D). A conditional model takes a `label` for all or one for each, by names or by numbers. Images
    and numbers come back on the CPU and without gradients; with `grad=True` on the model's device and with the graph
    that gradients follow. The numbers are those of the commands.

    Args:
        loaded: the model and what is known about it.
        path: of its checkpoint.

    Attributes:
        model: the `torch.nn.Module`.
        config: the settings that it was trained with, as plain dictionaries.
        data: facts about its data: `name`, `shape`, `support`, `class_names` and more.
        step: of the training, at which the weights were saved.
        path: of the checkpoint.
    """

    def __init__(self, loaded: Trained, path: Path) -> None:
        self.model, self.data, self.config, progress = loaded
        self.step = progress["step"]
        self.path = path
        self._loaded = loaded

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.data.shape))
        return (
            f"TrainedModel({self.data.name}, {shape}, {self.data.support}, latent_dim={self.latent_dim}, {self.path})"
        )

    @property
    def latent_dim(self) -> int:
        """D, the dimensions of z."""
        return self.model.latent_dim

    @property
    def device(self) -> torch.device:
        """The device that the model computes on."""
        return next(self.model.parameters()).device

    def preprocess(self, x: Any) -> Float[Tensor, "n *shape"]:
        """Return examples as the model sees them: floats in [0, 1] on its device, which `log_prob` of p(x|z) takes.

        Raises:
            DataError: for values of another type, shape or range, with the fix.
        """
        return torch.cat([x for _, x, _ in self._chunks(self._split(x, None, needs_labels=False))])

    def encode(self, x: Any, label: Any = None, grad: bool = False) -> LatentDistribution:
        """Return q(z|x), of batch shape (N,): `mean`, `log_prob(z)`, `rsample_and_log_prob(noise)`; of the posteriors
        that are normal and of hierarchies `stddev` and `rsample()` too. In a hierarchy a level's mean and `stddev` are
        those given the means of the levels above; `levels(mean)` takes it apart."""
        with torch.set_grad_enabled(grad):
            parts = [(self.model.features(x, y), y) for _, x, y in self._chunks(self._split(x, label))]
            if isinstance(self.model, Hierarchy):
                chunked = ChunkedPosterior([self.model.posterior_of(*part) for part in parts])
                return chunked if grad else chunked.frozen()
            features = tuple(torch.cat(rows) for rows in zip(*(each for each, _ in parts)))
            labels = [y for _, y in parts if y is not None]
            q = self.model.posterior_of(features, torch.cat(labels) if labels else None)
        return q if grad or not q.provides("frozen") else q.frozen()  # a flow is not computed before it is asked

    def levels(self, z: Float[Tensor, "*batch d"]) -> dict[str, Tensor]:
        """Return the levels of latent vectors, (…, D_l), by their names: of a hierarchy `z1`, the nearest to the data,
        `z2` …; of a model of one level `z`."""
        if z.shape[-1:] != (self.latent_dim,):
            raise DataError(f"z has the shape {tuple(z.shape)}; give vectors (…, {self.latent_dim})")
        return dict(zip(self.model.level_sizes, self.model.split(z)))

    def decode(self, z: Any, label: Any = None, grad: bool = False) -> Distribution:
        """Return p(x|z), of batch shape (…,): `mean`, `sample()`, `log_prob(x)`."""
        with torch.set_grad_enabled(grad):
            return self.model.decode(*self._latents(z, label))

    def image(self, z: Any, label: Any = None, grad: bool = False) -> Float[Tensor, "*batch_shape"]:
        """Return the images (…, *shape) that stand for p(x|z) where they are shown, in [0, 1]."""
        with torch.set_grad_enabled(grad):
            points, labels = self._latents(z, label)
            batch = points.shape[:-1]
            points = points.flatten(0, -2)
            parts = [None] * len(points.split(TOGETHER)) if labels is None else labels.flatten().split(TOGETHER)
            images = [self.model.image(part, y) for part, y in zip(points.split(TOGETHER), parts)]
            return self._returned(torch.cat(images).unflatten(0, batch), grad)

    def as_frame(self, x: Any, index: Any = None) -> Any:
        """Return rows, such as `sample` and `reconstruct` give, as a pandas data frame with the table's columns: whole
        numbers where it has them, categories by their names.

        Args:
            x: rows (N, D).
            index: of the data frame, from 0 on by default.

        Raises:
            DataError: if the model's data are no table.
        """
        if not self.data.columns:
            raise DataError(f"the model's data are no table but {self.data.name}; use the tensor as it is")
        import pandas as pd

        rows = torch.as_tensor(x).detach().cpu().numpy()
        if rows.shape[1:] != tuple(self.data.shape):
            raise DataError(f"x has the shape {rows.shape}; give rows (N, {self.data.shape[0]})")
        return pd.DataFrame(as_values(rows, self.data.columns), index=index)

    @torch.no_grad()
    def sample(
        self,
        n: int,
        seed: int = 0,
        label: Any = None,
        temperature: float | list[float] = 1.0,
        draw: bool | None = None,
    ) -> Float[Tensor, "n *shape"]:
        """Return new examples, those of `vae-sample n=… seed=…`: example i is the same whatever n is.

        Args:
            n: how many.
            seed: of the draws of z, and of x.
            label: of a conditional model: one for all or one for each; without any all classes take turns.
            temperature: scales the spread of z around the prior's mean; of a hierarchy it may be a list with one for
                each level, from z1 on.
            draw: return draws from p(x|z), in place of the examples that it stands for; None: of all but images.
        """
        n, seed = _checked("n", n, Count), _checked("seed", seed)
        needed, free = 2 * 4 * n * math.prod(self.data.shape), memory.available()  # in parts, and joined
        if needed > free:
            sizes = f"{memory.format_size(needed)}, of which {memory.format_size(free)} are free"
            raise DataError(f"n={n}: so many examples take {sizes}; ask for fewer, or use vae-sample format=npz")
        is_array = isinstance(temperature, (tuple, np.ndarray, Tensor))
        temperature = _checked("temperature", np.asarray(temperature).tolist() if is_array else temperature)
        is_in_turn = label is None or isinstance(label, str) and label == "all"
        y = class_labels(self.model.classes, n, label) if is_in_turn else labels_of(label, self._loaded, n)
        draw = not self.data.is_image if draw is None else draw
        return torch.cat(list(generate_images(Sampler(self.model, seed, temperature), n, draw, y)))

    def reconstruct(
        self, x: Any, label: Any = None, grad: bool = False, levels: int | None = None
    ) -> Float[Tensor, "n *shape"]:
        """Return the images of p(x|z) at the means of q(z|x), those of `vae-reconstruct`; of a hierarchy perhaps at
        those of so many `levels` from the top, with the others at the prior's means given those."""
        levels = _checked("levels", levels)
        with torch.set_grad_enabled(grad):
            examples = self._chunks(self._split(x, label))
            pairs = reconstructions(self.model, examples, levels=levels)
            images = [self._returned(below, grad) for _, below in pairs]
            return torch.cat(images)

    def log_likelihood(
        self, x: Any, label: Any = None, num_importance_samples: int = DRAWS, seed: int = 0, grad: bool = False
    ) -> Float[Tensor, "n"]:
        """Return the importance-weighted estimate of log p(x) of each example in nats, float64: that of `vae-evaluate`,
        a lower bound in expectation that rises to log p(x) with the number of draws."""
        return self._scores(x, label, "num_importance_samples", num_importance_samples, seed, grad).log_likelihood[0]

    def elbo(
        self, x: Any, label: Any = None, mc_samples: int = DRAWS, seed: int = 0, grad: bool = False
    ) -> Float[Tensor, "n"]:
        """Return the evidence lower bound of each example in nats, float64, from `mc_samples` draws of z: that of
        `vae-evaluate num_importance_samples=…`."""
        return self._scores(x, label, "mc_samples", mc_samples, seed, grad).elbo

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a checkpoint with the weights as they are now, which `vae_cli.load` and every command open.

        The file says nothing of validation: the weights may be others than those that were validated.

        Raises:
            UserError: if the file cannot be written, or a weight is not finite.
        """
        weights = self.model.state_dict()
        if not all(bool(value.isfinite().all()) for value in weights.values() if value.is_floating_point()):
            raise DataError("a weight of the model is not finite; go back to one that is")
        contents: dict[str, Any] = {
            "model": weights,
            "ema": None,
            "config": self.config,
            "data": asdict(self.data),
            "best": None,
        }
        contents |= {"progress": self._loaded.progress, "version": checkpoint.VERSION}
        file = expand(os.fspath(path))
        try:
            checkpoint.save_weights(file, contents)
        except (OSError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            raise OutputError(f"{printable(file)} cannot be written ({describe(error)}); name another") from error

    def _scores(self, x: Any, label: Any, name: str, draws: int, seed: int, grad: bool) -> Scores:
        draws, seed = _checked(name, draws), _checked("seed", seed)
        return score(self.model, self._split(x, label), [draws], seed, together=values_at_once("auto"), grad=grad)

    def _split(self, x: Any, label: Any, needs_labels: bool = True) -> Split:
        split = as_examples(x, self.data, self.config["dataset"].get("binarize", "none"))
        labels = labels_of(label, self._loaded, len(split)) if needs_labels else None
        return replace(split, labels=labels)

    def _chunks(self, split: Split) -> Iterator[Chunk]:
        return chunks(self.model, split, len(split), 0)

    def _latents(self, z: Any, label: Any) -> tuple[Tensor, Tensor | None]:
        """Return latent vectors (…, D) and their labels (…,) on the model's device."""
        if isinstance(z, Distribution):
            raise DataError("z is a distribution; give latent vectors, such as its mean or a draw by rsample()")
        try:
            points = torch.as_tensor(np.asarray(z) if isinstance(z, (list, tuple)) else z)
        except (TypeError, ValueError, RuntimeError) as error:
            what = f"z is of type {type(z).__name__}; give a tensor or an array (…, {self.latent_dim})"
            raise DataError(what) from error
        if not points.numel() or points.shape[-1:] != (self.latent_dim,):
            shape = "x".join(map(str, points.shape)) or "a single number"
            raise DataError(f"z is {shape}; this model takes (N, {self.latent_dim})")
        points = points.to(self.device, torch.float32)
        if not bool(points.isfinite().all()):
            raise DataError("z has numbers that are not finite")
        points = points[None] if points.dim() == 1 else points
        labels = labels_of(label, self._loaded, points.shape[:-1].numel())
        return points, None if labels is None else labels.to(self.device).view(points.shape[:-1])

    def _returned(self, images: Tensor, grad: bool) -> Tensor:
        return images if grad else images.cpu()


def _checked(key: str, value: Any, annotation: Any = None) -> Any:
    """Return a setting that is given in Python, checked as on a command line or against an annotation."""
    value = value.item() if isinstance(value, np.generic) else value
    check_value(key, value, annotation or RULES[key])
    return value
