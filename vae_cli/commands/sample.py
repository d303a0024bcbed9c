"""New images from a trained model: draws, and walks through its latent space."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.commands import image_files
from vae_cli.commands.image_files import LARGEST_GRID
from vae_cli.commands.inputs import choose, load_data
from vae_cli.constraints import show
from vae_cli.data import Split
from vae_cli.errors import ConfigError
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import batch
from vae_cli.generation import walks
from vae_cli.generation.pictures import IMAGES, ROWS, SIDE, STEPS, label_columns, walk_picture
from vae_cli.generation.samplers import (
    CHUNK,
    AggregateSampler,
    MixtureSampler,
    Sampler,
    class_labels,
    generate_images,
    pad_labels,
)
from vae_cli.generation.walks import Walk
from vae_cli.reporting import grids
from vae_cli.runs import checkpoint

MEASURED = 10_000  # most test images that tell how active a dimension is
STEMS = {"prior": "samples", "interpolate": "interpolation", "traverse": "traversal", "manifold": "manifold"}
# The keys that only some modes take, each with the value at which it asks for nothing.
NEUTRAL = {
    "n": None,
    "sampler": "prior",
    "components": 10,
    "temperature": 1.0,
    "between": None,
    "around": None,
    "steps": None,
    "draw": False,
}
TAKES = {
    "prior": {"n", "sampler", "components", "temperature", "draw"},
    "interpolate": {"n", "sampler", "components", "temperature", "between", "steps"},
    "traverse": {"n", "around", "steps"},
    "manifold": {"steps"},
}
Settings = Mapping[str, Any]


def run(settings: dict[str, Any]) -> None:
    """Write images that a checkpoint's model generates.

    Args:
        settings: the plain config of `vae-sample`.

    Raises:
        UserError: for a checkpoint or data that cannot be used, or an output that cannot be written.
    """
    mode, kind = settings["mode"], settings["format"]
    _check_mode(settings)
    output = image_files.place(settings["output"], kind, STEMS[mode])
    count = settings["n"] or IMAGES
    if mode == "prior" and kind == "grid" and count > LARGEST_GRID:
        raise ConfigError(f"n={count}: a grid holds at most {LARGEST_GRID:,} images; use format=png or format=npz")
    if mode == "prior" and kind == "png":
        image_files.check_folder(output, image_files.numbered(count))
    path = checkpoint.find(settings["checkpoint"])
    used = trained.load(path, settings["device"], settings["allow"])
    if mode == "prior":
        what = _write_samples(used, settings, count, output)
    else:
        what = _write_walk(*_walk(used, settings), used, settings, output)
    print(f"{what} from {path} in {output}")


def _check_mode(settings: Settings) -> None:
    """Refuse what the chosen mode would leave unused."""
    mode = settings["mode"]
    for key, neutral in NEUTRAL.items():
        if key not in TAKES[mode] and settings[key] != neutral:
            modes = " or ".join(f"mode={name}" for name, keys in TAKES.items() if key in keys)
            raise ConfigError(f"{key}={show(settings[key])}: mode={mode} takes no {key}; it goes with {modes}")
    if settings["components"] != NEUTRAL["components"] and settings["sampler"] != "gmm":
        raise ConfigError(f"components={settings['components']} goes with sampler=gmm")
    if settings["temperature"] != 1 and settings["sampler"] != "prior":
        raise ConfigError(f"temperature={settings['temperature']} goes with sampler=prior")
    _check_rows(settings)
    if settings["between"] is not None:
        for key in ("n", "sampler", "temperature"):
            if settings[key] != NEUTRAL[key]:
                raise ConfigError(f"{key}={settings[key]}: between= names the ends already; leave out one of the two")


def _check_rows(settings: Settings) -> None:
    """Refuse a grid of more images than one holds before anything is drawn."""
    if settings["mode"] in ("interpolate", "manifold") and settings["format"] == "grid":
        ends, side = settings["between"], settings["steps"]
        rows = len(ends) - 1 if ends else settings["n"] or ROWS
        _check_grid(*((side or SIDE, side or SIDE) if settings["mode"] == "manifold" else (rows, side or STEPS)))


def _check_grid(rows: int, steps: int) -> None:
    if rows * steps > LARGEST_GRID:
        raise ConfigError(
            f"a grid holds at most {LARGEST_GRID:,} images, not {rows} rows of {steps}; ask for fewer, or use "
            "format=png or format=npz"
        )


def _write_samples(used: Trained, settings: Settings, count: int, output: Path) -> str:
    model, kind = used.model, settings["format"]
    y = class_labels(model.classes, count, settings["label"])
    images = generate_images(_sampler(used, settings), count, settings["draw"], y)
    bar = tqdm(images, total=-(-count // CHUNK), disable=None, unit_scale=CHUNK, unit=" images")
    with image_files.naming(output):
        if kind == "grid":
            grids.save(grids.grid(torch.cat(list(bar)), label_columns(y)), output)
        elif kind == "png":
            image_files.write_pngs(bar, output, image_files.numbered(count))
        else:
            more = {} if y is None else {"labels": y.numpy()}
            image_files.write_npz(bar, output, (count, *used.facts.shape), more)
    return f"{count:,} image(s){_of_labels(y)}"


def _sampler(used: Trained, settings: Settings) -> Sampler:
    kind, seed = settings["sampler"], settings["seed"]
    if kind == "prior":
        return Sampler(used.model, seed, settings["temperature"])
    train = choose(load_data(used, settings), "train", used)
    if kind == "aggregate":
        return AggregateSampler(used.model, seed, train)
    return MixtureSampler(used.model, seed, train, settings["components"])


def _of_labels(y: Tensor | None) -> str:
    if y is None:
        return ""
    one = bool((y == y[0]).all())
    return f" of label {int(y[0])}" if one else f" of labels 0 to {int(y.max())} in turn"


def _write_walk(walk: Walk, ends: Tensor | None, used: Trained, settings: Settings, output: Path) -> str:
    rows, steps = walk.z.shape[:2]
    if settings["format"] == "grid":
        _check_grid(rows, steps)
    images = walk.images(used.model)
    names = [f"row_{row:03d}_step_{step:03d}.png" for row in range(rows) for step in range(steps)]
    if settings["format"] == "png":
        image_files.check_folder(output, names)
    with image_files.naming(output):
        if settings["format"] == "grid":
            grids.save(walk_picture(walk, torch.cat(list(images)), ends), output)
        elif settings["format"] == "png":
            image_files.write_pngs(images, output, names)
        else:
            image_files.write_npz(images, output, (rows * steps, *used.facts.shape), _coordinates(walk))
    return f"{rows} row(s) of {steps} images"


def _coordinates(walk: Walk) -> dict[str, np.ndarray]:
    found = {"z": walk.z.flatten(0, 1).cpu().numpy()}
    return found if walk.y is None else found | {"labels": walk.y.flatten().cpu().numpy()}


@torch.no_grad()
def _walk(used: Trained, settings: Settings) -> tuple[Walk, Tensor | None]:
    """The walk of a mode, and the images of the data that it leads from and to."""
    if settings["mode"] == "interpolate":
        return _interpolation(used, settings)
    label = class_labels(used.model.classes, 1, settings["label"])
    if settings["label"] == "all":
        raise ConfigError(f"label=all: mode={settings['mode']} shows one label; name it")
    shown = 0 if label is None else int(label[0])
    if settings["mode"] == "manifold":
        return walks.manifold(used.model, settings["steps"] or SIDE, shown), None
    return _traversal(used, settings, shown), None


def _interpolation(used: Trained, settings: Settings) -> tuple[Walk, Tensor | None]:
    model, steps, between = used.model, settings["steps"] or STEPS, settings["between"]
    if between is None:
        return _between_draws(used, settings, steps), None
    if settings["label"] is not None:
        raise ConfigError(f"label={settings['label']}: between= shows the images' own labels; leave out one of the two")
    test = choose(load_data(used, settings), "test", used)
    x, y = _numbered(used, test, between, "between", settings["seed"])
    z = model.encode(x, y).mean
    ends = None if y is None or not model.classes else (y[:-1], y[1:])
    captions = [f"{first} to {second}" for first, second in zip(between, between[1:])]
    walk = walks.interpolate(z[:-1], z[1:], steps, ends, captions)
    return walk, torch.stack([x[:-1], x[1:]], dim=1).cpu()


def _between_draws(used: Trained, settings: Settings, steps: int) -> Walk:
    model, rows = used.model, settings["n"] or ROWS
    y, sampler = class_labels(model.classes, 2 * rows, settings["label"]), _sampler(used, settings)
    if y is not None:
        y = y[:rows].repeat_interleave(2)  # of both ends
    chunks = []
    for start in range(0, 2 * rows, CHUNK):
        chosen = None if y is None else pad_labels(y[start : start + CHUNK]).to(sampler.device)
        chunks.append(sampler.chunk(start, chosen))
    first, second = torch.cat(chunks)[: 2 * rows].unflatten(0, (rows, 2)).unbind(1)
    own = None if y is None else y[::2].to(sampler.device)
    return walks.interpolate(first, second, steps, None if own is None else (own, own))


def _traversal(used: Trained, settings: Settings, label: int) -> Walk:
    model, steps, seed = used.model, settings["steps"] or STEPS, settings["seed"]
    test = choose(load_data(used, settings), "test", used)
    means = latent_codes.points(model, test.spread(MEASURED), seed).means
    if settings["around"] is None:
        return walks.traverse(model, means, steps, settings["n"], label=label)
    x, y = _numbered(used, test, [settings["around"]], "around", seed)
    if model.classes and settings["label"] is None and y is not None:
        label = int(y[0])
    return walks.traverse(model, means, steps, settings["n"], model.encode(x, y).mean[0], label)


def _numbered(used: Trained, split: Split, numbers: list[int], key: str, seed: int) -> tuple[Tensor, Tensor | None]:
    """Images of a split by their numbers, with their labels.

    Raises:
        ConfigError: if there are not so many.
    """
    for number in numbers:
        if number >= len(split):
            given = show(numbers if key == "between" else number)
            raise ConfigError(f"{key}={given}: the test split's images are numbered 0 to {len(split) - 1}")
    one = partial(batch, used.model, split, seed=seed)
    parts = [one(slice(number, number + 1)) for number in numbers]
    y = [label for _, label in parts if label is not None]
    return torch.cat([x for x, _ in parts]), torch.cat(y) if y else None
