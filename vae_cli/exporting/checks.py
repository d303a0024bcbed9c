"""The comparison of an exported program with the model, before it is announced."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from vae_cli import noise
from vae_cli.build.trained import Trained
from vae_cli.data import Split
from vae_cli.data.download import without_downloads
from vae_cli.errors import ExportError, UserError
from vae_cli.evaluation.bounds import batch
from vae_cli.exporting.programs import Encoder, Program, Tensors
from vae_cli.generation.samplers import CHUNK, Sampler, class_labels, generate_images
from vae_cli.inference.inputs import choose_split, load_data

SIZES = (1, 3, 64)  # of the batches that are compared
TOLERANCE = 1e-4  # by which a number may differ, relative to its size where that is more than 1
SEED = 0
LARGEST = 1 << 26  # values of all examples together

Arrays = dict[str, np.ndarray]
Run = Callable[[Arrays], Arrays]  # an exported program: inputs to outputs, by name


@dataclass(frozen=True)
class Examples:
    """Images that the parts are compared on.

    Args:
        x: (N, *shape) as the model takes them, in [0, 1].
        y: (N,), the labels of a conditional model.
        z: (N, D), a draw from q(z|x) for each.
        kind: in words, such as `test images`.
    """

    x: Tensor
    y: Tensor | None
    z: Tensor
    kind: str

    def __len__(self) -> int:
        return len(self.x)


def examples(trained: Trained, config: Mapping[str, Any], count: int) -> Examples:
    """Return test images of the data that a model was trained on; where they are not here, samples of the model.

    Of large images there are fewer than `count`, so that they fit into memory.
    """
    count = min(count, max(max(SIZES), LARGEST // math.prod(trained.facts.shape)))
    try:
        with without_downloads():
            split = choose_split(load_data(trained, config), "test", trained)
    except UserError as error:
        if config.get("dataset", {}).get("path") is not None:
            raise
        # they are missing, or the config names none, as that of an exported model
        return _samples(trained, f"samples of the model, since its data are not here ({error})")
    return _of_split(trained, split, min(count, len(split)))


def _of_split(trained: Trained, split: Split, count: int) -> Examples:
    pairs = [
        batch(trained.model, split, slice(start, min(start + noise.BLOCK, count)), SEED)
        for start in range(0, count, noise.BLOCK)
    ]
    labels = [y for _, y in pairs if y is not None] if trained.model.classes else []
    return _with_codes(
        trained, torch.cat([x for x, _ in pairs]), torch.cat(labels) if labels else None, f"test {trained.facts.noun}s"
    )


def _samples(trained: Trained, kind: str) -> Examples:
    y = class_labels(trained.model.classes, CHUNK)
    x = torch.cat(
        list(generate_images(Sampler(trained.model, SEED), CHUNK, trained.model.preprocessing is not None, y))
    )
    if trained.model.preprocessing is not None:
        return _with_codes(trained, x, y, kind)
    x = x.clamp(0, 1)
    levels = {"binary": 1, "levels256": 255}.get(trained.facts.support)
    return _with_codes(trained, x if levels is None else (levels * x).round() / levels, y, kind)


@torch.no_grad()
def _with_codes(trained: Trained, x: Tensor, y: Tensor | None, kind: str) -> Examples:
    codes = [trained.model.encode(x[some], None if y is None else y[some]) for some in chunks(len(x))]
    epsilon = noise.by_image(len(x), 1, trained.model.noise_dim, SEED, "export codes")
    z = torch.cat([q.rsample_and_log_prob(epsilon[:, some])[0][0] for q, some in zip(codes, chunks(len(x)))])
    return Examples(x, y, z, kind)


def check(program: Program, run: Run, examples: Examples) -> float:
    """Return the largest difference |a − b| / max(1, |b|) of an exported program's outputs a from the model's b.

    The batches have `SIZES`.

    Raises:
        ExportError: naming the output, if one differs by more than `TOLERANCE`.
    """
    largest = 0.0
    for size in SIZES:
        inputs, expected = _batch(program, examples, size)
        outputs = run(inputs)
        for name, value in expected.items():
            found, wanted = outputs[name].astype(np.float64), value.numpy().astype(np.float64)
            difference = np.inf
            if found.shape == wanted.shape:
                difference = float((np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0.0))
            if not difference <= TOLERANCE:
                raise ExportError(
                    f"{program.name}: exported, its {name} differs from the model's by {difference:.2g} in a batch of "
                    f"{size}, where {TOLERANCE:g} is allowed"
                )
            largest = max(largest, difference)
    return largest


@torch.no_grad()
def _batch(program: Program, examples: Examples, size: int) -> tuple[Arrays, Tensors]:
    """Return a program's inputs for some of the examples, and the outputs of the model."""
    rows = torch.arange(size, 2 * size) % len(examples)
    x = examples.x[rows]
    given = inputs(program, x, None if examples.y is None else examples.y[rows], examples.z[rows])
    if isinstance(program, Encoder):  # from what the model itself takes, so that the preprocessing is compared too
        expected = program.codes(x, given.get("label"), given.get("noise"))
    else:
        expected = program(**given)
    return {name: value.numpy() for name, value in given.items()}, expected


def inputs(program: Program, x: Tensor, y: Tensor | None, z: Tensor | None = None) -> Tensors:
    """Return those of a program's inputs for images x (B, *shape): the images, their labels, base noise, and z."""
    values: Tensors = {}
    for value in program.inputs:
        if value.name == "noise":
            values["noise"] = base_noise(len(x), value.shape[0])
        else:
            own = program.pixels(x) if isinstance(program, Encoder) and value.name == "x" else None
            known = {"x": own, "label": y, "z": z}[value.name]
            assert known is not None
            values[value.name] = known
    return values


def base_noise(count: int, dim: int, draw: int = 0, start: int = 0) -> Tensor:
    """Return base noise (count, dim) of the examples from number `start` on, the same for the same draw."""
    return noise.by_image(count, 1, dim, SEED, "export", draw, start=start)[0]


def run_module(module: nn.Module) -> Run:
    """Return a program in torch as a function of named arrays."""

    @torch.no_grad()
    def run(inputs: Arrays) -> Arrays:
        outputs = module(**{name: torch.from_numpy(value) for name, value in inputs.items()})
        return {name: value.numpy() for name, value in outputs.items()}

    return run


def chunks(count: int, most: int = noise.BLOCK) -> Iterator[slice]:
    """Yield the places of examples that go through a program together."""
    for start in range(0, count, most):
        yield slice(start, min(start + most, count))
