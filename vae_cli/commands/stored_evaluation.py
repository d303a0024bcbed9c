"""The evaluation.json of a run: what it is for, what it keeps, and what a new evaluation adds to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vae_cli.errors import CheckpointError, counted
from vae_cli.runs import checkpoint
from vae_cli.runs.reader import RUN_FILES, Run, finite, mapping

NAME = "evaluation.json"  # in a run directory
# What an evaluation has if it is asked for, and keeps of an earlier one if not; and the parts of it that are added to
# those of earlier scores, if all of `SAME` is the same.
EXTRAS = {"generation": ("samples",), "disentanglement": ("udr",)}
SAME = ("n", "seed", "features", "drawn", "images", "variant")


@dataclass(frozen=True)
class StoredEvaluation:
    """An earlier evaluation of the same weights on the same examples.

    Args:
        directory: the run's.
        contents: of its evaluation.json; empty without one.
    """

    directory: Path
    contents: Mapping[str, Any]

    @property
    def path(self) -> Path:
        return self.directory / NAME

    def more_than(self, about: Mapping[str, Any], count: int) -> str | None:
        """Return what it has more of than an evaluation of `count` examples: examples, or of as many draws; None if
        it has not."""
        images = finite(mapping(self.contents.get("elbo")).get("n"))
        draws = finite(self.contents.get("num_importance_samples"))
        if images is None or draws is None or (images, draws) <= (count, about["num_importance_samples"]):
            return None
        return f"has more already: {counted(int(images), about['noun'])} with {counted(int(draws), 'draw')} each"

    def joined(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Return a new evaluation with what only this one has; of what both have it takes the numbers of more examples,
        and of as many of more draws."""
        whole = dict(result if self.more_than(result, result["elbo"]["n"]) is None else self.contents)
        for key, parts in EXTRAS.items():
            new, old = mapping(result.get(key)), mapping(self.contents.get(key))
            is_smaller = (finite(new.get("n")) or 0) < (finite(old.get("n")) or 0)
            chosen = old if is_smaller or not new else _with_parts(new, old, parts)
            whole |= {key: chosen} if chosen else {}
        return whole

    def replaced_in(self, whole: Mapping[str, Any]) -> list[str]:
        """Return the names of the scores that are lost when it is replaced by another."""
        kept = _scores(whole)
        return [name for name in _scores(self.contents) if name not in kept]


def reason_not_to_write(directory: Path, path: Path, about: Mapping[str, Any]) -> str | None:
    """Return why a run's evaluation.json is not for an evaluation; None if it is.

    It is for the run's own weights and the test split of the training's data.

    Args:
        directory: the run's.
        path: the checkpoint that is scored.
        about: what the file would say of the evaluation besides its numbers.
    """
    if about["path"] is not None:
        return "is for the data of the training"
    if about["split"] != "test":
        return "is for the test split"
    is_run = any((directory / name).exists() for name in RUN_FILES)
    if is_run and not _stands_for(path, directory):
        return "is for the checkpoint of the run itself"
    return None


def find(directory: Path, about: Mapping[str, Any]) -> StoredEvaluation:
    """Return the evaluation in a run directory if it is of the same weights and examples; else an empty one.

    Args:
        directory: the run's.
        about: what the file would say of a new evaluation besides its numbers.
    """
    contents = Run(directory, directory.name).evaluation
    is_of_same = Path(str(contents.get("checkpoint"))).name == Path(about["checkpoint"]).name
    is_alike = is_of_same and all(contents.get(key) == about[key] for key in ("split", "step", "path"))
    is_alike = is_alike and contents.get("weights", about["weights"]) == about["weights"]  # older files have no digest
    return StoredEvaluation(directory, contents if is_alike else {})


def _scores(evaluation: Mapping[str, Any]) -> list[str]:
    samples = mapping(mapping(evaluation.get("generation")).get("samples"))
    return [f"samples by {name}" for name in samples] + ["udr"] * ("udr" in mapping(evaluation.get("disentanglement")))


def _with_parts(new: Mapping[str, Any], old: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Return new scores with the parts of old ones that they lack, if both are of the same images and features."""
    is_alike = all(_without_udr(new.get(key)) == _without_udr(old.get(key)) for key in SAME)
    if not old or not is_alike:
        return dict(new)
    variant = {**mapping(old.get("variant")), **mapping(new.get("variant"))}
    merged = dict(new) | ({"variant": variant} if variant else {})
    for name in names:
        both = {**mapping(old.get(name)), **mapping(new.get(name))}
        merged |= {name: both} if both else {}
    return merged


def _without_udr(value: Any) -> Any:
    """Return a value; of the variant of scores what is not of the runs beside, which may be others."""
    return {key: each for key, each in value.items() if key != "udr"} if isinstance(value, Mapping) else value


def _stands_for(path: Path, directory: Path) -> bool:
    """Return whether a checkpoint is the one that `checkpoint=` takes of a run directory, if that has any."""
    try:
        return checkpoint.find(directory).samefile(path)
    except CheckpointError:
        return True
