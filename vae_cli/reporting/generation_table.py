"""The numbers of generated images as a table: a row for what is compared, a column for each number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vae_cli.errors import printable
from vae_cli.runs.reader import finite, mapping

COLUMNS = ("fid", "frechet_distance", "kid", "kernel_distance", "precision", "recall", "density", "coverage")
ROWS = {"reconstructions": "reconstructions", "train": "training images"}


class Cell(NamedTuple):
    """A number and its standard error, if it has one."""

    value: float
    stderr: float | None


class Table(NamedTuple):
    """What was compared how, the names of the columns, the rows by their names, and remarks."""

    title: str
    columns: list[str]
    rows: dict[str, list[Cell | None]]
    remarks: list[str]


def from_evaluation(result: Mapping[str, Any]) -> Table | None:
    """Return the table of the contents of evaluation.json; None if it has no such numbers."""
    generation = mapping(result.get("generation"))
    compared = {f"samples, {name}": mapping(each) for name, each in mapping(generation.get("samples")).items()}
    compared |= {title: mapping(generation.get(name)) for name, title in ROWS.items() if name in generation}
    columns = [name for name in COLUMNS if any(name in numbers for numbers in compared.values())]
    if not columns:
        return None
    rows = {
        printable(name): [_cell(mapping(numbers.get(column))) for column in columns]
        for name, numbers in compared.items()
    }
    return Table(_title(generation), columns, rows, _remarks(generation))


def _cell(number: Mapping[str, Any]) -> Cell | None:
    value, stderr = finite(number.get("value")), finite(number.get("stderr"))
    return None if value is None else Cell(float(value), None if stderr is None else float(stderr))


def _title(generation: Mapping[str, Any]) -> str:
    features, n = mapping(generation.get("features")), finite(generation.get("n"))
    accuracy, size = finite(features.get("accuracy")), finite(features.get("n_features"))
    right = "" if accuracy is None else f", {100 * accuracy:.1f} % right"
    what = "draws from p(x|z)" if generation.get("drawn") is True else "images of p(x|z)"
    network = f"{size or 0:,} features ({printable(features.get('name'))}{right})"
    return f"Generation: {n or 0:,} {what} against {printable(generation.get('images'))} images, in {network}"


def _remarks(generation: Mapping[str, Any]) -> list[str]:
    k = mapping(generation.get("k"))
    of_k: dict[str, list[str]] = {}
    for name, value in k.items():
        of_k.setdefault(str(value), []).append(str(name))
    remarks = [printable("; ".join(f"{' and '.join(names)} with k = {value}" for value, names in of_k.items()))]
    if generation.get("biased") is True:
        is_fid = any("fid" in mapping(each) for each in mapping(generation.get("samples")).values())
        distance, kernel = ("FID", "KID") if is_fid else ("Fréchet distance", "kernel distance")
        few = f"so few images make the {distance} too large: compare it only with that of as many"
        remarks.append(f"{few}; the {kernel} has no such bias")
    return [remark for remark in remarks if remark]


def text(table: Table) -> str:
    """Return a table in lines."""
    columns = [
        [name, *(_shown(cells[place]) for cells in table.rows.values())] for place, name in enumerate(table.columns)
    ]
    widths = [max(map(len, column)) for column in columns]
    lines = ["", table.title, ""]
    for name, *cells in zip(["", *table.rows], *columns):
        lines.append(f"{name:<22}" + "".join(f"  {cell:>{width}}" for cell, width in zip(cells, widths)))
    return "\n".join(line.rstrip() for line in [*lines, "", *table.remarks])


def _shown(cell: Cell | None) -> str:
    if cell is None:
        return ""
    digits = 2 if abs(cell.value) >= 100 else 6 if 0 < abs(cell.value) < 0.1 else 4
    return f"{cell.value:,.{digits}f}" + ("" if cell.stderr is None else f" ± {cell.stderr:.{digits}f}")
