"""The numbers of an evaluation as a person reads them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from vae_cli.errors import printable
from vae_cli.reporting import generation_table

Number = dict[str, Any]

UNITS = {
    **dict.fromkeys(("elbo", "reconstruction", "kl", "log_likelihood"), "nats per example"),
    "bits_per_dim": "bits per dimension",
    "mse": "per pixel, on [0, 1]",
    "psnr": "decibels",
    "active_units": "dimensions whose posterior mean has a variance above 0.01",
    "mmd": "squared, of codes and prior",
    "index_code_mi": "nats",
    "knn_accuracy": "5 nearest training codes",
    "linear_probe_accuracy": "logistic regression on training codes",
}


OF_FACTORS = {
    "mig": "mutual information gap",
    "dci_disentanglement": "1: each dimension serves one factor",
    "dci_completeness": "1: each factor has one dimension",
    "dci_informativeness": "factors predicted from codes, the part that is right",
    "sap": "accuracy of the best dimension less the second's",
    "modularity": "1: each dimension tells of one factor",
    "beta_vae_score": "fixed factor predicted from pairs of images",
    "factor_vae_score": "fixed factor predicted from the steadiest dimension",
    "gaussian_total_correlation": "nats, of the means",
    "gaussian_total_correlation_of_draws": "nats, of draws",
    "udr": "agreement with other runs",
}


class Row(NamedTuple):
    """A number, its standard error if it has one, and its unit."""

    name: str
    value: float
    stderr: float | None
    unit: str


def title(result: Mapping[str, Any]) -> str:
    """Return what was measured, from the contents of evaluation.json."""
    images, draws = result["elbo"]["n"], result["num_importance_samples"]
    of = f"{images:,} {result.get('noun', 'image')}s of {result['path'] or result['data']}, {result['split']} split"
    return f"{of}, {draws:,} importance samples"


def rows(result: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the numbers in the contents of evaluation.json, but for the lists."""
    for name, unit in UNITS.items():
        if name in result:
            number, remark = result[name], ""
            if name == "mse" and "psnr" not in result:
                unit = "per value, standardized"
            if name == "mmd":
                remark = f", {number['n']:,} of each"
            if name == "index_code_mi":
                state = ", saturated" if number["saturated"] else ""
                remark = f", at most log N = {number['cap']:.2f} with N = {number['n']:,}{state}"
            if name == "active_units" and "levels" in result:
                remark = ", in units of the prior below the top level"
            yield Row(name, number["value"], number["stderr"], unit + remark)
        if name == "kl":
            yield from _levels(result.get("levels", {}))
        if name == "log_likelihood":
            for k, number in list(result["log_likelihood_by_samples"].items())[:-1]:
                yield Row(f"  with K = {int(k):,}", number["value"], number["stderr"], "")


def _levels(levels: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the KL of each level of a hierarchy."""
    for name, level in levels.items():
        active = level.get("active_units")
        unit = "" if active is None else f"{active['value']:,} of {level['latent_dim']:,} units active"
        yield Row(f"  {name}", level["kl"]["value"], level["kl"]["stderr"], unit)


def table(result: Mapping[str, Any]) -> str:
    """Return all numbers in lines."""
    lines = [title(result), ""]
    for row in rows(result):
        value = f"{row.value:,}" if isinstance(row.value, int) else f"{row.value:,.4f}"
        error = "" if row.stderr is None else f"± {row.stderr:.4f}"
        lines.append(f"{row.name:<22}{value:>14}  {error:<10}  {row.unit}")
    if "kl_per_dim" in result:
        largest = sorted(result["kl_per_dim"], reverse=True)
        shown = " ".join(f"{value:.2f}" for value in largest[:16]) + (" …" if len(largest) > 16 else "")
        lines.append(f"{'kl_per_dim':<22}{shown}  nats, largest first")
    if generation := generation_table.from_evaluation(result):
        lines.append(generation_table.text(generation))
    if scored := result.get("disentanglement"):
        lines += ["", *_factor_lines(scored)]
    return "\n".join(line.rstrip() for line in lines)


def factor_rows(scores: Mapping[str, Any]) -> Iterator[Row]:
    """Yield the disentanglement scores, below the MIG that of each factor, which is a part of it."""
    for name, unit in OF_FACTORS.items():
        if name in scores and scores[name]["value"] is not None:
            yield Row(name, scores[name]["value"], scores[name]["stderr"], unit)
        if name == "mig":
            for factor, number in scores["mig_by_factor"].items():
                yield Row(f"  of {printable(factor)}", number["value"], number["stderr"], "")


def factor_remark(scores: Mapping[str, Any]) -> str:
    """Return by how much few images make mutual information too large; empty where it is little."""
    if scores.get("biased") is not True:
        return ""
    images, share = scores["mig"]["n"], scores["information_bias"]
    return (
        f"of {images:,} images mutual information is too large, by up to about {share:.0%} of a factor's entropy: "
        "low shares and modularity say little; score more images"
    )


def _factor_lines(scores: Mapping[str, Any]) -> Iterator[str]:
    variant = dict(scores["variant"])
    yield f"disentanglement, {scores['mig']['n']:,} codes: {variant.pop('codes')}"
    for row in factor_rows(scores):
        error = "" if row.stderr is None else f"± {row.stderr:.4f}"
        yield f"{row.name:<36}{row.value:>10.4f}  {error:<10}  {row.unit}"
    if remark := factor_remark(scores):
        yield f"  {remark}"
    for name, text in variant.items():
        yield f"  {name}: {text}"
