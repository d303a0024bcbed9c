"""The numbers of an evaluation as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

Number = dict[str, Any]

UNITS = {
    **dict.fromkeys(("elbo", "reconstruction", "kl", "log_likelihood"), "nats per image"),
    "bits_per_dim": "bits per dimension",
    "mse": "per pixel, on [0, 1]",
    "psnr": "decibels",
    "active_units": "dimensions whose posterior mean has a variance above 0.01",
    "mmd": "squared, of codes and prior",
    "index_code_mi": "nats",
    "knn_accuracy": "5 nearest training codes",
    "linear_probe_accuracy": "logistic regression on training codes",
}


class Row(NamedTuple):
    """One number, with its standard error where it has one, and what it is counted in."""

    name: str
    value: float
    stderr: float | None
    unit: str


def title(found: Mapping[str, Any]) -> str:
    """What was measured, of the contents of evaluation.json."""
    images, draws = found["elbo"]["n"], found["num_importance_samples"]
    of = f"{images:,} images of {found['path'] or found['data']}, {found['split']} split"
    return f"{of}, {draws:,} importance samples"


def rows(found: Mapping[str, Any]) -> Iterator[Row]:
    """The numbers in the contents of evaluation.json, but for the lists."""
    for name, unit in UNITS.items():
        if name in found:
            yield _row(name, found[name], unit + _remark(name, found[name]))
        if name == "log_likelihood":
            for k, value in list(found["log_likelihood_by_samples"].items())[:-1]:
                yield _row(f"  with K = {int(k):,}", value, "")


def table(found: Mapping[str, Any]) -> str:
    """All of them in lines."""
    lines = [title(found), "", *map(_line, rows(found))]
    if "kl_per_dim" in found:
        largest = sorted(found["kl_per_dim"], reverse=True)
        shown = " ".join(f"{value:.2f}" for value in largest[:16]) + (" …" if len(largest) > 16 else "")
        lines.append(f"{'kl_per_dim':<22}{shown}  nats, largest first")
    return "\n".join(line.rstrip() for line in lines)


def _row(name: str, number: Number, unit: str) -> Row:
    return Row(name, number["value"], number["stderr"], unit)


def _remark(name: str, found: Number) -> str:
    if name == "mmd":
        return f", {found['n']:,} of each"
    if name != "index_code_mi":
        return ""
    state = ", saturated" if found["saturated"] else ""
    return f", at most log N = {found['cap']:.2f} with N = {found['n']:,}{state}"


def _line(row: Row) -> str:
    shown = f"{row.value:,}" if isinstance(row.value, int) else f"{row.value:,.4f}"
    error = "" if row.stderr is None else f"± {row.stderr:.4f}"
    return f"{row.name:<22}{shown:>14}  {error:<10}  {row.unit}"
