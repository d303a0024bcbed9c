"""Programs of torch.export: a model's parts as files that torch alone loads and runs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from vae_cli import __version__
from vae_cli.build.trained import Trained
from vae_cli.errors import ExportError
from vae_cli.exporting.checks import Run, run_module
from vae_cli.exporting.programs import Program, reason, trace
from vae_cli.exporting.quiet import quiet

ABOUT = "vae_cli.json"  # the documentation inside the file


def write(program: Program, trained: Trained, path: Path) -> None:
    """Write a program with its documentation.

    Raises:
        ExportError: if it cannot be exported.
        OSError: if it cannot be written.
    """
    about = program.describe() | {
        "support": trained.facts.support,
        "data": trained.facts.name,
        "columns": [asdict(column) for column in trained.facts.columns],
        "class_names": list(trained.facts.class_names),
        "levels": trained.model.level_sizes,
        "vae_cli": __version__,
    }
    recorded = trace(program)
    try:
        with quiet():
            torch.export.save(recorded, path, extra_files={ABOUT: json.dumps(about, indent=2)})
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        raise ExportError(f"{program.name}: {reason(program, error)}") from error


def runner(path: Path) -> Run:
    """Return a program in a file as a function of named arrays."""
    with quiet():
        return run_module(torch.export.load(path).module())
