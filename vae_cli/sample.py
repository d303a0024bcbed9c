"""New images from a trained model."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution
from tqdm import tqdm

from vae_cli import checkpoint, figures, noise, trained
from vae_cli.data import DataFacts
from vae_cli.errors import ConfigError, UserError
from vae_cli.model import VAE

LARGEST_GRID = 10_000
WIDEST = 20  # labels that have a column each
CHUNK = 64  # images generated together; always all of them, since a product's rounding depends on its size
OUTPUTS = {"grid": "samples.png", "png": "samples", "npz": "samples.npz"}


def run(settings: dict[str, Any]) -> None:
    """Write images that a checkpoint's model generates.

    Args:
        settings: the plain config of `vae-sample`.

    Raises:
        UserError: for a checkpoint that cannot be used, or an output that cannot be written.
    """
    kind, count = settings["format"], settings["n"]
    output = _output(settings["output"], kind)
    if kind == "grid" and count > LARGEST_GRID:
        raise ConfigError(f"n={count}: a grid holds at most {LARGEST_GRID:,} images; use format=png or format=npz")
    if kind == "png":
        _check_folder(output, count)
    path = checkpoint.find(settings["checkpoint"])
    model, facts, _ = trained.load(path, settings["device"], settings["allow"])
    y = labels(model.classes, count, settings["label"])
    images = draw(model, count, settings["seed"], settings["temperature"], settings["draw"], y)
    bar = tqdm(images, total=-(-count // CHUNK), disable=None, unit_scale=CHUNK, unit=" images")
    try:
        {"grid": _write_grid, "png": _write_pngs, "npz": _write_npz}[kind](bar, output, y, count, facts)
    except OSError as error:
        raise UserError(f"output={output} cannot be written ({error.strerror or error}); name another") from error
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


def _output(given: str | None, kind: str) -> Path:
    output = Path(given or OUTPUTS[kind]).expanduser()
    suffix = Path(OUTPUTS[kind]).suffix
    if suffix and output.suffix.lower() != suffix:
        fix = next((name for name, path in OUTPUTS.items() if Path(path).suffix == output.suffix.lower()), "png")
        raise ConfigError(f"output={given} is no name for format={kind}: end it in {suffix}, or set format={fix}")
    if kind == "png" and output.suffix.lower() in (".png", ".npz"):
        raise ConfigError(f"output={given}: format=png fills a folder; name one, or use format=grid or format=npz")
    return output


def _check_folder(output: Path, count: int) -> None:
    """Refuse to mix new images with others that they do not replace."""
    other = next((p for p in sorted(output.glob("*.png")) if not (p.stem.isdigit() and int(p.stem) < count)), None)
    if other is not None:
        raise ConfigError(f"output={output} holds other images ({other.name}); name another folder, or empty it")


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


def _write_grid(images: Iterable[Tensor], output: Path, y: Tensor | None, count: int, facts: DataFacts) -> None:
    figures.save(figures.grid(torch.cat(list(images)), columns(y)), output)


def _write_pngs(images: Iterable[Tensor], output: Path, y: Tensor | None, count: int, facts: DataFacts) -> None:
    number = 0
    for chunk in images:
        for pixels in figures.to_bytes(chunk):
            figures.save_png(pixels, output / f"{number:06d}.png")
            number += 1


def _write_npz(images: Iterable[Tensor], output: Path, y: Tensor | None, count: int, facts: DataFacts) -> None:
    """One float32 array `images` (N, C, H, W), a chunk at a time; of a conditional model also `labels` (N,)."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    header = {"descr": "<f4", "fortran_order": False, "shape": (count, *facts.shape)}
    try:
        with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            with archive.open("images.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_2_0(member, header)
                for chunk in images:
                    member.write(chunk.numpy().astype("<f4").tobytes())
            if y is not None:
                with archive.open("labels.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, y.numpy())
        temporary.replace(output)
    finally:
        temporary.unlink(missing_ok=True)
