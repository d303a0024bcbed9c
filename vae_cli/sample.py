"""New images from a trained model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vae_cli import checkpoint, figures, image_files, noise, trained
from vae_cli.errors import ConfigError
from vae_cli.image_files import LARGEST_GRID
from vae_cli.model import VAE

WIDEST = 20  # labels that have a column each
CHUNK = 64  # images generated together; always all of them, since a product's rounding depends on its size


def run(settings: dict[str, Any]) -> None:
    """Write images that a checkpoint's model generates.

    Args:
        settings: the plain config of `vae-sample`.

    Raises:
        UserError: for a checkpoint that cannot be used, or an output that cannot be written.
    """
    kind, count = settings["format"], settings["n"]
    output = image_files.place(settings["output"], kind, "samples")
    if kind == "grid" and count > LARGEST_GRID:
        raise ConfigError(f"n={count}: a grid holds at most {LARGEST_GRID:,} images; use format=png or format=npz")
    if kind == "png":
        image_files.check_folder(output, image_files.numbered(count))
    path = checkpoint.find(settings["checkpoint"])
    model, facts, _ = trained.load(path, settings["device"], settings["allow"])
    y = labels(model.classes, count, settings["label"])
    images = draw(model, count, settings["seed"], settings["temperature"], settings["draw"], y)
    bar = tqdm(images, total=-(-count // CHUNK), disable=None, unit_scale=CHUNK, unit=" images")
    with image_files.naming(output):
        if kind == "grid":
            figures.save(figures.grid(torch.cat(list(bar)), columns(y)), output)
        elif kind == "png":
            image_files.write_pngs(bar, output, image_files.numbered(count))
        else:
            more = {} if y is None else {"labels": y.numpy()}
            image_files.write_npz(bar, output, (count, *facts.shape), more)
    print(f"{count:,} image(s) from {path} in {output}{_of_labels(y)}")


def labels(classes: int, count: int, label: int | str | None = None) -> Tensor | None:
    """Labels (count,) to draw images of: one for all, or every class in turn; None for a model without any.

    Raises:
        ConfigError: for a label that the model does not know.
    """
    if not classes:
        if label is not None:
            raise ConfigError(f"label={label}: this model knows no labels; train one with conditional=true")
        return None
    if label in (None, "all"):
        return torch.arange(count) % classes
    assert isinstance(label, int)
    if label >= classes:
        raise ConfigError(f"label={label}: this model's labels are 0 to {classes - 1}, or all")
    return torch.full((count,), label)


def _of_labels(y: Tensor | None) -> str:
    if y is None:
        return ""
    one = bool((y == y[0]).all())
    return f", of label {int(y[0])}" if one else f", of labels 0 to {int(y.max())} in turn"


def base_noise(start: int, count: int, dim: int, seed: int) -> Tensor:
    """Noise (count, dim) of the images from number `start` on, whatever else is drawn with them."""
    return noise.by_image(count, 1, dim, seed, "samples", start=start)[0]


@torch.no_grad()
def draw(
    model: VAE, count: int, seed: int, temperature: float = 1.0, draw_x: bool = False, y: Tensor | None = None
) -> Iterator[Tensor]:
    """Generated images in chunks (≤ CHUNK, C, H, W) on the CPU: the mean of p(x|z), or a draw from it.

    Image number i is the same for every `count`; of a conditional model `y` (count,) are their labels.
    """
    device = next(model.parameters()).device
    for start in range(0, count, CHUNK):
        drawn = base_noise(start, CHUNK, model.prior.noise_dim, seed).to(device)
        images = model.sample(drawn, temperature, None if y is None else _padded(y[start : start + CHUNK]).to(device))
        values = _draw_x(images, noise.key(seed, "pixels", start), device) if draw_x else images.mean
        yield values[: count - start].cpu()


def _padded(y: Tensor) -> Tensor:
    """A chunk of labels, always as many: the last one fills up."""
    return torch.cat([y, y[-1:].expand(CHUNK - len(y))])


def _draw_x(images: Distribution, seed: int, device: torch.device) -> Tensor:
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        return images.sample()


def columns(y: Tensor | None) -> int | None:
    """How wide a grid is: a column for each label, if there are several and not too many."""
    if y is None or not 1 < (known := int(y.max()) + 1) <= WIDEST or bool((y == y[0]).all()):
        return None
    return known
