"""Whether what .docs/results.md claims is still so: `make results`, or python tests/benchmarks/results.py.

Trains the quick entries with their own commands, and rewrites the table between the markers of the page: what was
claimed, what came out now, and of which commit and machine. `--only mnist ppca` runs some; rows of the others stay.
The exit status is 1 if a value lies outside its tolerance, or a command fails.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from timing import machine

from vae_cli.errors import counted

ROOT = Path(__file__).parents[2]
PAGE = ROOT / ".docs" / "results.md"
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
HEAD = (
    "| command | number | claimed | now | seconds | seed | commit | machine |",
    "|---|---|---|---|---|---|---|---|",
)


@dataclass(frozen=True)
class Claim:
    """An entry of the page that is trained in minutes.

    Args:
        name: for `--only`.
        settings: of `vae-train`, as the page has them.
        value: that the page has, in nats per example.
        tolerance: how far from it another machine's rounding, or a change that does no harm, may lead. It is about
            the spread over seeds.
        draws: of log p(x) by `vae-evaluate`; None for the test ELBO of the training's summary.
        seed: of the training.
    """

    name: str
    settings: str
    value: float
    tolerance: float
    draws: int | None = None
    seed: int = 0

    @property
    def command(self) -> str:
        """What a user types."""
        return f"vae-train {self.settings}"

    @property
    def number(self) -> str:
        """What is compared, with its number of draws."""
        return "test ELBO" if self.draws is None else f"log p(x), {self.draws:,} draws"


@dataclass(frozen=True)
class Measured:
    """What came out of a claim's command.

    Args:
        value: the number; NaN if the command failed.
        seconds: of the training, from its start to its report.
    """

    value: float
    seconds: float


CLAIMS = (
    Claim("digits", "dataset=digits latent_dim=8 epochs=50", -164.11, 0.8),
    Claim("mnist", "epochs=20 latent_dim=16 dataset=mnist", -100.83, 0.5),
    Claim("fashion_mnist", "epochs=20 latent_dim=16 dataset=fashion_mnist", -2047.19, 8.0),
    Claim("ppca", "experiment=ppca latent_dim=2", 14.29, 0.1),
    Claim("burda_vae_fast", "experiment=burda_vae_fast epochs=200", -86.10, 0.4, draws=5000),
)


def is_held(claim: Claim, measured: Measured) -> bool:
    """Return whether a value lies within the tolerance; none that is not a number does."""
    return abs(measured.value - claim.value) <= claim.tolerance


def measure(claim: Claim, directory: Path) -> Measured:
    """Run a claim's commands in a new directory."""
    run = directory / claim.name
    started = time.monotonic()
    status = _call("train", *shlex.split(claim.settings), f"seed={claim.seed}", f"hydra.run.dir={run}")
    seconds = time.monotonic() - started
    if status == 0 and claim.draws is not None:
        status = _call("evaluate", f"checkpoint={run}", f"num_importance_samples={claim.draws}")
    if status:
        return Measured(math.nan, seconds)
    if claim.draws is None:
        value = json.loads((run / "summary.json").read_text(encoding="utf-8"))["test"]["elbo"]
    else:
        value = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))["log_likelihood"]["value"]
    return Measured(math.nan if value is None else float(value), seconds)


def _call(command: str, *settings: str) -> int:
    print(f"vae-{command} {shlex.join(settings)}", file=sys.stderr, flush=True)
    return subprocess.run([sys.executable, "-m", "vae_cli", command, *settings], stdout=sys.stderr).returncode


def row(claim: Claim, measured: Measured, commit: str, here: str) -> str:
    """Return the table's row of a claim."""
    found = "failed" if math.isnan(measured.value) else shown(measured.value)
    found = found if is_held(claim, measured) else f"**{found}: outside**"
    cells = (found, f"{measured.seconds:.0f}", claim.seed, commit, here)
    return f"{_start(claim)} {' | '.join(map(str, cells))} |"


def shown(value: float) -> str:
    """Return a number as the page has it, with a minus sign."""
    return f"{value:.2f}".replace("-", "−")


def rewritten(page: str, rows: dict[str, str]) -> str:
    """Return the page with these rows by command in its table. Rows of other claims stay; those of none go.

    Raises:
        ValueError: if the page has no place for the table.
    """
    before, begin, rest = page.partition(BEGIN)
    old, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the page has no {BEGIN} with {END} after it")
    kept = {line.split("`")[1]: line for line in old.splitlines() if line.startswith("| `")}
    lines = []
    for claim in CLAIMS:
        start = _start(claim)
        stays = kept.get(claim.command, "")  # unless the claim itself has changed
        stays = stays if stays.startswith(start) else f"{start} not run yet | | | | |"
        lines.append(rows.get(claim.command, stays))
    known = {claim.command for claim in CLAIMS}
    lines += [line for command, line in rows.items() if command not in known]
    return "\n".join([before + begin, *HEAD, *lines, end + after])


def _start(claim: Claim) -> str:
    """Return the cells of a row that say what is claimed."""
    return f"| `{claim.command}` | {claim.number} | {shown(claim.value)} ± {claim.tolerance:g} |"


def commit_here() -> str:
    """Return the commit of the tree, and whether files differ from it; `unknown` outside a clone."""
    git = ["git", "-C", str(ROOT)]
    commit = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if commit.returncode:
        return "unknown"
    changed = subprocess.run([*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True)
    return commit.stdout.strip() + (" and changes" if changed.stdout.strip() else "")


def machine_here() -> str:
    """Return the processor, its threads and torch, in a few words."""
    here = machine()
    return f"{here['gpu'] or here['processor']}, {counted(here['threads'], 'thread')}, torch {here['torch']}"


def main(claims: Sequence[Claim] = CLAIMS, arguments: Sequence[str] | None = None, page: Path = PAGE) -> int:
    """Run claims and rewrite the page after each; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=[claim.name for claim in claims], metavar="NAME")
    only = parser.parse_args(arguments).only
    commit, here, failed = commit_here(), machine_here(), []
    for claim in claims:
        if only is not None and claim.name not in only:
            continue
        with tempfile.TemporaryDirectory() as directory:
            measured = measure(claim, Path(directory))
        line = row(claim, measured, commit, here)
        text = rewritten(page.read_text(encoding="utf-8"), {claim.command: line})
        page.write_text(text, encoding="utf-8")
        print(line, flush=True)
        if not is_held(claim, measured):
            failed.append(claim.name)
    if failed:
        print(f"outside their tolerance: {', '.join(failed)}; see {page}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
