"""Interleaved timing, and the table and the JSON of what was measured."""

from __future__ import annotations

import importlib
import json
import logging
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

PAUSE = 0.05  # seconds

Action = Callable[[], object]
Times = dict[str, list[float]]


def interleaved(actions: Mapping[str, Action], rounds: int, calls: int = 1) -> Times:
    """Seconds per call of each action in each round; in a round all of them take their turns.

    Before each turn the threads of the one before get a moment to fall asleep.
    """
    times: Times = {name: [] for name in actions}
    for turn in range(rounds + 1):
        for name, action in actions.items():
            time.sleep(PAUSE)
            began = time.perf_counter()
            for _ in range(calls):
                action()
            if turn:  # the first round warms up
                times[name].append((time.perf_counter() - began) / calls)
    return times


class ActionInProcess:
    """An action in a process of its own, which shares no setting of this one; calling it waits for its end.

    Args:
        make: a function that gives the action, by `module:name`.
        arguments: of it.
    """

    def __init__(self, make: str, *arguments: object) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, make, arguments), daemon=True)
        self.process.start()
        self.connection.recv()

    def __call__(self) -> Any:
        self.connection.send("go")
        return self.connection.recv()

    def end(self) -> None:
        self.connection.send(None)
        self.process.join()


def _serve(connection: Connection, make: str, arguments: tuple[object, ...]) -> None:
    module, _, name = make.partition(":")
    logging.disable(logging.WARNING)
    action = getattr(importlib.import_module(module), name)(*arguments)
    connection.send("ready")
    while connection.recv() is not None:
        connection.send(action())


def ratio(times: Times, over: str, under: str) -> float:
    """The median over the rounds of one action's time over another's."""
    return statistics.median(a / b for a, b in zip(times[over], times[under]))


@dataclass
class Goal:
    """A ratio or a number that is to be at most, or at least, as large."""

    what: str
    found: float
    limit: float
    at_most: bool = True

    @property
    def is_met(self) -> bool:
        return self.found <= self.limit if self.at_most else self.found >= self.limit

    def __str__(self) -> str:
        sign, verdict = ("≤" if self.at_most else "≥"), ("met" if self.is_met else "MISSED")
        return f"{self.what}: {self.found:.3g}, goal {sign} {self.limit:g}: {verdict}"


@dataclass
class Row:
    """What was measured of one thing.

    Args:
        measure: what.
        unit: of `ours`, `peers` and `floor`.
        ours: the median.
        floor: what the machine needs for the least of it.
        peers: the medians of what a user might take instead.
        over_floor: ours over the floor, the median of the rounds' ratios.
        as_fast: by peer, how many times as fast ours is, alike.
    """

    measure: str
    unit: str
    ours: float
    floor: float | None = None
    peers: dict[str, float] = field(default_factory=dict)
    over_floor: float | None = None
    as_fast: dict[str, float] = field(default_factory=dict)
    goals: list[Goal] = field(default_factory=list)


def row(measure: str, times: Times, ours: str, floor: str | None = None, unit: str = "ms", scale: float = 1e3) -> Row:
    """The row of some interleaved times; what is neither ours nor the floor is a peer."""
    medians = {name: scale * statistics.median(found) for name, found in times.items()}
    peers = [name for name in times if name not in (ours, floor)]
    return Row(
        measure,
        unit,
        medians[ours],
        None if floor is None else medians[floor],
        {name: medians[name] for name in peers},
        None if floor is None else ratio(times, ours, floor),
        {name: ratio(times, name, ours) for name in peers},
    )


def table(rows: list[Row]) -> str:
    """The rows as aligned text, and a line for every goal."""
    head = ["measure", "unit", "ours", "floor", "over floor", "peers", "ours is as fast"]
    lines = [head]
    for r in rows:
        peers = ", ".join(f"{name} {_shown(value)}" for name, value in r.peers.items())
        fast = ", ".join(f"{value:.2f}× {name}" for name, value in r.as_fast.items())
        over = "" if r.over_floor is None else f"{r.over_floor:.2f}×"
        floor = "" if r.floor is None else _shown(r.floor)
        lines.append([r.measure, r.unit, _shown(r.ours), floor, over, peers, fast])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    goals = [f"  {r.measure}; {goal}" for r in rows for goal in r.goals]
    return "\n".join([*text, "", "goals", *goals]) if goals else "\n".join(text)


def _shown(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def write(path: Path, rows: list[Row], about: Mapping[str, object]) -> None:
    """The rows as JSON, with what they were measured on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = []
    for r in rows:
        goals = [asdict(goal) | {"met": goal.is_met} for goal in r.goals]
        found.append(asdict(r) | {"goals": goals})
    path.write_text(json.dumps(dict(about) | {"rows": found}, indent=2) + "\n", encoding="utf-8")


def machine() -> dict[str, object]:
    """What the figures are of."""
    import torch

    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
