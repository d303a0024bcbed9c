"""Labels for a conditional model, by their names or their numbers."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from vae_cli.build.trained import Trained
from vae_cli.errors import ConfigError, DataError, printable, shortened
from vae_cli.generation.samplers import class_labels


def label_number(label: int | str | None, loaded: Trained) -> int | str | None:
    """Return the number of a label that is given by its name or number; `all` and None stay.

    Raises:
        ConfigError: for a label that the model does not have.
    """
    classes, names = loaded.model.classes, loaded.facts.class_names
    if label in (None, "all") or not classes:
        return label
    folded = [name.casefold() for name in names]
    for spelling, known in ((str(label), list(names)), (str(label).casefold(), folded)):
        if spelling in known:
            return known.index(spelling)
    if isinstance(label, int) and 0 <= label < classes:
        return label
    near = get_close_matches(str(label).casefold(), folded, n=1)
    hint = f"; did you mean {printable(names[folded.index(near[0])])}?" if near else ""
    raise ConfigError(f"label={label}: this model's labels are {_all_labels(loaded)}, or all{hint}")


def labels_of(label: Any, loaded: Trained, count: int) -> Int[Tensor, "n"] | None:
    """Return the labels of so many examples; None for a model without labels.

    Args:
        label: one for all, or one for each; names or numbers.
        loaded: a trained model.
        count: of the examples.

    Raises:
        ConfigError: for a label that the model does not have.
        DataError: if a conditional model is given none, or not one for each example.
    """
    if not loaded.model.classes:
        return class_labels(0, count, label)
    if label is None:
        raise DataError(f"this model is conditional: give label=, one for all or one for each: {_all_labels(loaded)}")
    if isinstance(label, (str, int)):
        return torch.full((count,), _number(label, loaded))
    given = label.tolist() if hasattr(label, "tolist") else label
    if not isinstance(given, Iterable):
        return torch.full((count,), _number(given, loaded))
    numbers = [_number(each, loaded) for each in given]
    if len(numbers) != count:
        raise DataError(f"label has {len(numbers)} entries for {count} example(s); give one for all, or one for each")
    return torch.tensor(numbers, dtype=torch.long)


def _number(label: Any, loaded: Trained) -> int:
    number = label_number(label, loaded)
    if not isinstance(number, int):
        raise ConfigError(f"label={label}: give each example one of {_all_labels(loaded)}")
    return number


def _all_labels(loaded: Trained) -> str:
    names = loaded.facts.class_names
    return shortened(names) if names else f"0 to {loaded.model.classes - 1}"
