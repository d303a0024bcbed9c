"""`vae-compare`: many runs side by side, as a table, a CSV file and a page."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import Any, Literal

from vae_cli.constraints import check_value
from vae_cli.errors import UserError, counted, describe
from vae_cli.reporting import comparison_page
from vae_cli.reporting.comparison import Comparison
from vae_cli.runs.reader import DISENTANGLEMENT_METRICS, EVALUATION_METRICS, GENERATION_METRICS, METRICS, Run, find
from vae_cli.system.atomic import write_text, written_or_replaced
from vae_cli.system.paths import expand

CSV, PAGE = "comparison.csv", "comparison.html"


def run(places: Sequence[str], config: dict[str, Any]) -> None:
    """Print a table of runs and write comparison.csv and comparison.html.

    Args:
        places: run directories, sweep directories or patterns.
        config: the plain config of `vae-compare`.

    Raises:
        UserError: if there are no runs, none has the metric, or an output cannot be written.
    """
    check_value("metric", config["metric"], Literal[METRICS])
    runs, folder = find(places), expand(config["output"])
    comparison = Comparison.of(runs, _choose_metric(runs, config["metric"]))
    print(comparison.as_text(shutil.get_terminal_size().columns))
    where = [written_or_replaced(folder / name) for name in (CSV, PAGE)]
    for path, text in ((folder / CSV, comparison.as_csv()), (folder / PAGE, comparison_page.render(comparison))):
        try:
            write_text(path, text)
        except OSError as error:
            raise UserError(f"{path} cannot be written ({describe(error)}); name a folder with output=") from error
    if comparison.warning:
        print(f"note: {comparison.warning}")
    print("\n".join(where))


def _choose_metric(runs: Sequence[Run], metric: str) -> str:
    """Return the metric to sort by; in place of `elbo` that of validation as long as no run is completed.

    Raises:
        UserError: if no run has it.
    """
    if any(run.number(metric) is not None for run in runs):
        return metric
    if metric == "elbo":
        print("note: no run is completed yet: sorted by validation_elbo")
        return "validation_elbo"
    fix = "a run has it once it is completed (or choose metric=validation_elbo)"
    if metric in EVALUATION_METRICS:
        fix = "run vae-evaluate checkpoint=DIR for each first"
    if metric in DISENTANGLEMENT_METRICS:
        fix = "run vae-evaluate checkpoint=DIR disentanglement=true for each first"
    if metric in GENERATION_METRICS:
        fix = "run vae-evaluate checkpoint=DIR generation=true for each first"
    raise UserError(f"metric={metric}: none of the {counted(len(runs), 'run')} has it; {fix}")
