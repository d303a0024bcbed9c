"""`vae-encode`: the latent codes of images."""

from __future__ import annotations

from collections.abc import Sequence, Set
from pathlib import Path
from typing import Any

import torch

from vae_cli.build import trained
from vae_cli.build.trained import Trained
from vae_cli.commands import image_files, row_files
from vae_cli.data.base import label_names
from vae_cli.errors import counted
from vae_cli.inference import inputs
from vae_cli.inference.codes import codes
from vae_cli.runs import checkpoint
from vae_cli.system.atomic import written_or_replaced


def run(config: dict[str, Any]) -> None:
    """Write the latent codes of images.

    Args:
        config: the plain config of `vae-encode`.

    Raises:
        UserError: for a checkpoint or images that cannot be used, or an output that cannot be written.
    """
    kind = row_files.KINDS.get(Path(config["output"] or "").suffix.lower(), "npz")
    output = image_files.output_path(config["output"], kind, "codes", has_formats=False)
    path = checkpoint.find(config["checkpoint"])
    loaded = trained.load(path, config["device"], config["allow"])
    images = inputs.read(loaded, config)
    count = min(config["limit"] or len(images.split), len(images.split))
    examples = images.chunks(loaded.model, count, config["seed"], "encoding", loaded.facts.noun)
    chunks = list(codes(loaded.model, examples, config["seed"]))
    arrays = {name: torch.cat([chunk[name] for chunk in chunks]).numpy() for name in chunks[0]}
    image_files.keep(output, [config["input"], loaded.settings["dataset"].get("path")])
    where = written_or_replaced(output)
    with image_files.errors_name(output):
        if kind == "npz":
            image_files.write_npz(output, arrays | images.arrays(count))
        else:
            beside = {"row": images.split.in_file[:count].numpy()} | images.arrays(count)
            row_files.write(output, kind, [_table(arrays, beside, loaded)])
    print(f"{counted(count, 'code')} of {config['input']} by {path}: {where}")


def _table(arrays: dict[str, Any], beside: dict[str, Any], loaded: Trained) -> dict[str, Any]:
    """Return the codes as columns: what is beside them, and the mean and deviation of each dimension."""
    names, factors = loaded.model.dimension_names, loaded.facts.factor_names
    table = {name: values for name, values in beside.items() if name != "factors"}
    taken = {*table, *(f"{name}_{kind}" for kind in ("mean", "std") for name in names)}
    if "factors" in beside:
        columns = beside["factors"].T
        factors = (*factors, *(f"factor{number}" for number in range(len(factors), len(columns))))
        table |= dict(zip(_column_names(factors, taken), columns))
    if "label" in table and loaded.facts.class_names:
        table["label"] = label_names(table["label"].tolist(), loaded.facts.class_names)
    for kind in ("mean", "std"):
        table |= {f"{name}_{kind}": arrays[kind][:, number] for number, name in enumerate(names)}
    return table


def _column_names(factors: Sequence[str], taken: Set[str]) -> list[str]:
    """Return a name of its own for the column of each factor: `factor_label` of one that is named as another column."""
    names: list[str] = []
    for factor in factors:
        name = factor
        while name in taken or name in names or (name != factor and name in factors):
            name = f"factor_{name}"
        names.append(name)
    return names
