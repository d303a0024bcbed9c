"""`vae-sample`: new images from a trained model, by draws and by walks through its latent space."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from vae_cli.build import trained
from vae_cli.build.options import choice
from vae_cli.build.trained import Trained
from vae_cli.commands import image_files, row_files
from vae_cli.commands.image_files import LARGEST_GRID
from vae_cli.constraints import check_takes, show
from vae_cli.data import Split
from vae_cli.data.base import label_name, label_names
from vae_cli.data.columns import as_values
from vae_cli.errors import ConfigError, counted, shortened
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import batch
from vae_cli.evaluation.levels import relative_means
from vae_cli.generation import walks
from vae_cli.generation.level_walks import interpolate_level, level_number, redraw
from vae_cli.generation.pictures import IMAGES, ROWS, SIDE, STEPS, in_whole_rows, labeled_grid, walk_picture
from vae_cli.generation.samplers import (
    CHUNK,
    AggregateSampler,
    MixtureSampler,
    PointSampler,
    Sampler,
    class_labels,
    generate_images,
    pad_labels,
)
from vae_cli.generation.walks import Walk
from vae_cli.inference.inputs import choose_split, load_data
from vae_cli.inference.labels import label_number
from vae_cli.models import Model
from vae_cli.models.hierarchy import need_hierarchy
from vae_cli.reporting.grids import TRAVERSED_DIMENSIONS
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import write_png, written_or_replaced

ENCODED = 10_000  # most test images by which the activity of a dimension is judged
STEMS = {
    "prior": "samples",
    "interpolate": "interpolation",
    "traverse": "traversal",
    "manifold": "manifold",
    "levels": "levels",
}
MODES = {  # the modes that take a key, of those that not all take
    "n": ("prior", "interpolate", "traverse"),
    "sampler": ("prior", "interpolate"),
    "components": ("prior", "interpolate"),
    "temperature": ("prior", "interpolate", "levels"),
    "between": ("interpolate",),
    "path": ("interpolate",),
    "around": ("traverse", "levels"),
    "level": ("interpolate", "traverse"),
    "steps": ("interpolate", "traverse", "manifold", "levels"),
    "draw": ("prior",),
    "z": ("prior",),
}
DEFAULTS = {  # of these keys, at which they ask for nothing
    "n": None,
    "sampler": "prior",
    "components": 10,
    "temperature": 1.0,
    "between": None,
    "path": "linear",
    "around": None,
    "level": None,
    "steps": None,
    "draw": None,
    "z": None,
}
Config = Mapping[str, Any]


def run(config: dict[str, Any]) -> None:
    """Write images that a checkpoint's model generates.

    Args:
        config: the plain config of `vae-sample`.

    Raises:
        UserError: for a checkpoint or data that cannot be used, or an output that cannot be written.
    """
    mode, kind = config["mode"], config["format"]
    check_keys(config)
    if kind != "auto":  # mistakes in a name are told before a model is loaded
        image_files.output_path(config["output"], kind, STEMS[mode])
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, config["device"], config["allow"])
    kind = image_files.format_of(kind, config["output"], loaded.facts)
    draw = config["draw"] if config["draw"] is not None else not loaded.facts.is_image
    config = config | {"format": kind, "draw": draw}
    output = image_files.output_path(config["output"], kind, STEMS[mode])
    if mode == "prior" and kind == "png":
        image_files.check_folder(output, image_files.numbered_names(config["n"] or IMAGES))
    where = written_or_replaced(output)
    check_levels(config, loaded)
    config = config | {"label": label_number(config["label"], loaded)}
    written = _write_samples(loaded, config, output) if mode == "prior" else _write_walk(loaded, config, output)
    print(f"{written} from {path}: {where}")


def check_keys(config: Config) -> None:
    """Refuse keys that the chosen mode does not take, keys that exclude each other, and a grid that is too large.

    Raises:
        ConfigError: naming the key.
    """
    check_takes(config, "mode", MODES, DEFAULTS)
    mode, between = config["mode"], config["between"]
    for key, sampler in (("components", "gmm"), ("temperature", "prior")):
        if config[key] != DEFAULTS[key] and config["sampler"] != sampler:
            raise ConfigError(f"{key}={show(config[key])} goes with sampler={sampler}")
    for key in ("n", "sampler", "temperature"):
        if between is not None and config[key] != DEFAULTS[key]:
            raise ConfigError(f"{key}={show(config[key])}: between= names the ends already; leave out one of the two")
    if config["z"] is not None:
        others = [key for key in ("n", "sampler", "temperature") if config[key] != DEFAULTS[key]]
        for key in [*others, *(["label"] if config["label"] == "all" else [])]:
            raise ConfigError(f"{key}={show(config[key])}: z= names the one vector to decode; leave out one of the two")
    if (path := config["dataset"]["path"]) is not None and not _needs_data(config):
        raise ConfigError(
            f"dataset.path={path}: no data are needed here; it goes with sampler=gmm or aggregate, between=, around= "
            "or mode=traverse"
        )
    if config["format"] not in ("auto", "grid"):
        return
    if mode == "prior" and (config["n"] or IMAGES) > LARGEST_GRID:
        n = config["n"]
        raise ConfigError(f"n={n}: a grid holds at most {LARGEST_GRID:,} images; use format=png or format=npz")
    if mode == "interpolate":
        _check_grid(len(between) - 1 if between else config["n"] or ROWS, config["steps"] or STEPS)
    if mode == "manifold":
        _check_grid(config["steps"] or SIDE, config["steps"] or SIDE)


def check_levels(config: Config, loaded: Trained) -> None:
    """Refuse what needs a hierarchy of a model of one level, and the other way round.

    Raises:
        ConfigError: naming the key and the model.
    """
    model, name = loaded.model, f"model={choice('model', loaded.settings['model'])}"
    if config["mode"] == "levels":
        need_hierarchy(model, "mode=levels")
    if config["level"] is not None:
        level_number(model, config["level"])
    if model.is_flat:
        return
    if config["mode"] == "manifold":
        what = f"mode=manifold shows one latent plane, and {name} is a hierarchy"
        raise ConfigError(f"{what}; use mode=levels or mode=traverse")
    if config["sampler"] == "gmm":
        what = f"sampler=gmm fits a mixture to one latent vector, and {name} is a hierarchy"
        raise ConfigError(f"{what}; use sampler=aggregate or sampler=prior")


def _needs_data(config: Config) -> bool:
    has_images = config["between"] is not None or config["around"] is not None
    return config["mode"] == "traverse" or has_images or config["sampler"] != DEFAULTS["sampler"]


def _check_grid(rows: int, steps: int) -> None:
    if rows * steps > LARGEST_GRID:
        raise ConfigError(
            f"a grid holds at most {LARGEST_GRID:,} images, not {rows} rows of {steps}; ask for fewer, or use "
            "format=png or format=npz"
        )


def _write_samples(loaded: Trained, config: Config, output: Path) -> str:
    """Write draws; return what was written, in words."""
    kind, count = config["format"], config["n"] or IMAGES
    if config["z"] is not None:
        count = 1
    names, classes = loaded.facts.class_names, loaded.model.classes
    if kind == "grid" and config["label"] in (None, "all") and config["z"] is None:
        count = in_whole_rows(count, classes)
    y = class_labels(classes, count, config["label"])
    images = generate_images(_sampler(loaded, config), count, config["draw"], y)
    chunks = tqdm(images, total=-(-count // CHUNK), disable=None, unit_scale=CHUNK, unit=f" {loaded.facts.noun}s")
    with image_files.errors_name(output):
        if kind == "grid":
            write_png(output, labeled_grid(torch.cat(list(chunks)), y, names))
        elif kind == "png":
            image_files.write_pngs(chunks, output, image_files.numbered_names(count))
        elif kind in image_files.OF_ROWS:
            row_files.write(output, kind, _rows(chunks, loaded, y))
        else:
            labels = {} if y is None else {"labels": y.numpy()}
            image_files.write_npz(output, labels, chunks, (count, *loaded.facts.shape))
    if y is None:
        return counted(count, loaded.facts.noun)
    if bool((y == y[0]).all()):
        return f"{counted(count, loaded.facts.noun)} of label {label_name(int(y[0]), names)}"
    shown = shortened(names[: int(y.max()) + 1]) if names else f"0 to {int(y.max())}"
    return f"{counted(count, loaded.facts.noun)} of labels {shown} in turn"


def _rows(
    chunks: Iterable[Tensor], loaded: Trained, y: Tensor | None, walk: Walk | None = None
) -> Iterator[row_files.Values]:
    """Yield the columns of rows, chunk by chunk, with their labels where there are any; of a walk behind the
    names of its rows, its steps and its latent vectors."""
    columns, names, start = row_files.columns_of(loaded.facts), loaded.facts.class_names, 0
    for chunk in chunks:
        rows = {} if walk is None else _places(walk, loaded.model, slice(start, start + len(chunk)))
        rows |= as_values(chunk.numpy(), columns)
        if y is not None:
            labels = label_names(y[start : start + len(chunk)].tolist(), names)
            rows[loaded.settings["dataset"].get("label") or "label"] = labels
        start += len(chunk)
        yield rows


def _places(walk: Walk, model: Model, some: slice) -> dict[str, np.ndarray]:
    """Return some points of a walk as columns: the names of their rows, their steps, and z."""
    rows, steps = walk.z.shape[:2]
    captions = np.repeat(np.array(walk.rows or range(rows), object), steps)
    z = walk.z.flatten(0, 1).cpu().numpy()[some]
    places = {"walk": captions[some], "step": np.tile(np.arange(steps), rows)[some]}
    return places | dict(zip(model.dimension_names, z.T))


def _sampler(loaded: Trained, config: Config) -> Sampler:
    """Return where z comes from; of samplers that need them, the training images are loaded."""
    kind, seed = config["sampler"], config["seed"]
    if config["z"] is not None:
        return PointSampler(loaded.model, config["z"])
    if kind == "prior":
        return Sampler(loaded.model, seed, config["temperature"])
    train = choose_split(load_data(loaded, config), "train", loaded)
    if kind == "aggregate":
        return AggregateSampler(loaded.model, seed, train)
    return MixtureSampler(loaded.model, seed, train, config["components"])


@torch.no_grad()
def _write_walk(loaded: Trained, config: Config, output: Path) -> str:
    """Write a walk's images; return what was written, in words."""
    mode, kind, label = config["mode"], config["format"], config["label"]
    ends = None
    if mode == "interpolate" and config["between"] is not None:
        walk, ends = _between_images(loaded, config)
    elif mode == "interpolate":
        walk = _between_draws(loaded, config)
    else:
        labels = class_labels(loaded.model.classes, 1, label)
        if label == "all":
            raise ConfigError(f"label=all: mode={mode} shows one label; name it")
        shown_label = 0 if labels is None else int(labels[0])
        if mode == "manifold":
            walk = walks.manifold(loaded.model, config["steps"] or SIDE, shown_label)
        else:
            walk = (_traversal if mode == "traverse" else _levels)(loaded, config, shown_label)

    rows, steps = walk.z.shape[:2]
    images = walk.images(loaded.model)
    if kind == "grid":
        _check_grid(rows, steps)
    names = [f"row_{row:03d}_step_{step:03d}.png" for row in range(rows) for step in range(steps)]
    if kind == "png":
        image_files.check_folder(output, names)
    with image_files.errors_name(output):
        if kind == "grid":
            write_png(output, walk_picture(walk, torch.cat(list(images)), ends))
        elif kind == "png":
            image_files.write_pngs(images, output, names)
        elif kind in image_files.OF_ROWS:
            row_files.write(
                output, kind, _rows(images, loaded, None if walk.y is None else walk.y.flatten().cpu(), walk)
            )
        else:
            arrays = {"z": walk.z.flatten(0, 1).cpu().numpy()}
            if walk.y is not None:
                arrays["labels"] = walk.y.flatten().cpu().numpy()
            image_files.write_npz(output, arrays, images, (rows * steps, *loaded.facts.shape))
    what = f"{counted(rows, 'row')} of {steps} {loaded.facts.noun}s"
    if walk.y is None or not bool((walk.y == walk.y[0, 0]).all()):
        return what
    return f"{what} of label {label_name(int(walk.y[0, 0]), loaded.facts.class_names)}"


def _between_images(loaded: Trained, config: Config) -> tuple[Walk, Tensor]:
    """Return the walk from each of some test images to the next, and these images (R, 2, C, H, W)."""
    model, numbers = loaded.model, config["between"]
    if config["label"] is not None:
        label = config["label"]
        raise ConfigError(f"label={label}: between= shows the images' own labels; leave out one of the two")
    test = choose_split(load_data(loaded, config), "test", loaded)
    x, y = _test_images(loaded, test, numbers, f"between={show(numbers)}", config["seed"])
    z = model.encode(x, y).mean
    labels = None if y is None or not model.classes else (y[:-1], y[1:])
    captions = [f"{first} to {second}" for first, second in zip(numbers, numbers[1:])]
    walk = _interpolation(model, config, z[:-1], z[1:], labels, captions)
    return walk, torch.stack([x[:-1], x[1:]], dim=1).cpu()


def _between_draws(loaded: Trained, config: Config) -> Walk:
    """Return the walk between pairs of draws, both of one label where there are labels."""
    rows, sampler = config["n"] or ROWS, _sampler(loaded, config)
    y = class_labels(loaded.model.classes, 2 * rows, config["label"])
    row_labels = None if y is None else y[:rows]
    if row_labels is not None:
        y = row_labels.repeat_interleave(2)
    chunks = []
    for start in range(0, 2 * rows, CHUNK):
        chunk_labels = None if y is None else pad_labels(y[start : start + CHUNK]).to(sampler.device)
        chunks.append(sampler.chunk(start, chunk_labels))
    first, second = torch.cat(chunks)[: 2 * rows].unflatten(0, (rows, 2)).unbind(1)
    labels = None if row_labels is None else (row_labels.to(sampler.device),) * 2
    captions = None if row_labels is None else [label_name(y, loaded.facts.class_names) for y in row_labels.tolist()]
    return _interpolation(loaded.model, config, first, second, labels, captions)


def _interpolation(
    model: Model,
    config: Config,
    first: Tensor,
    second: Tensor,
    labels: tuple[Tensor, Tensor] | None,
    captions: list[str] | None,
) -> Walk:
    """Return the walk from each first vector to the second: in one level alone, with its first end's label, or in z."""
    steps, level = config["steps"] or STEPS, config["level"]
    sphere = walks.sphere_of(model, labels) if config["path"] == "slerp" else None
    if level is None:
        return walks.interpolate(first, second, steps, labels, captions, sphere)
    hierarchy, y = need_hierarchy(model, f"level={level}"), None if labels is None else labels[0]
    return interpolate_level(hierarchy, first, second, level_number(model, level), steps, y, captions)


def _traversal(loaded: Trained, config: Config, label: int) -> Walk:
    model, seed, number = loaded.model, config["seed"], config["around"]
    level = None if config["level"] is None else f"z{level_number(model, config['level'])}"
    test = choose_split(load_data(loaded, config), "test", loaded)
    means = relative_means(model, latent_codes.points(model, test.spread(ENCODED), seed))
    point = None
    if number is not None:
        point, label = _code(loaded, config, test, label)
    most = config["n"] or (None if model.is_flat or level is not None else TRAVERSED_DIMENSIONS)
    return walks.traverse(model, means, config["steps"] or STEPS, most, point, label, level)


def _levels(loaded: Trained, config: Config, label: int) -> Walk:
    """Return the walk that keeps more and more levels of one draw, or of a test image's code."""
    model, steps = need_hierarchy(loaded.model, "mode=levels"), config["steps"] or STEPS
    sampler = Sampler(model, config["seed"], config["temperature"])
    drawn = torch.cat([sampler.prior_noise(start) for start in range(0, steps, CHUNK)])[1:steps]
    if config["around"] is not None:
        z, label = _code(loaded, config, choose_split(load_data(loaded, config), "test", loaded), label)
    else:
        y = torch.full((CHUNK,), label, device=sampler.device) if model.classes else None
        z = sampler.chunk(0, y)[0]
    first = "one draw" if config["around"] is None else f"{loaded.facts.noun} {config['around']}"
    tempered = model.tempered(drawn, config["temperature"])
    return redraw(model, z[None], tempered[None], [first], label=label)


def _code(loaded: Trained, config: Config, test: Split, label: int) -> tuple[Tensor, int]:
    """Return the posterior's mean of the test image that `around=` names, and its label unless `label=` names one."""
    number = config["around"]
    x, y = _test_images(loaded, test, [number], f"around={number}", config["seed"])
    if loaded.model.classes and config["label"] is None and y is not None:
        label = int(y[0])
    return loaded.model.encode(x, y).mean[0], label


def _test_images(
    loaded: Trained, test: Split, numbers: list[int], setting: str, seed: int
) -> tuple[Tensor, Tensor | None]:
    """Return test images by their numbers, with their labels.

    Raises:
        ConfigError: naming the setting, if there are not so many.
    """
    if max(numbers) >= len(test):
        raise ConfigError(f"{setting}: the test split's {loaded.facts.noun}s are numbered 0 to {len(test) - 1}")
    pairs = [batch(loaded.model, test, slice(number, number + 1), seed) for number in numbers]
    labels = [y for _, y in pairs if y is not None]
    return torch.cat([x for x, _ in pairs]), torch.cat(labels) if labels else None
