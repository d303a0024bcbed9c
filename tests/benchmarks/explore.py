"""How long a moved hand waits for its image on the page of vae-explore: python tests/benchmarks/explore.py RUN …

Each round asks every run's server over HTTP, and drags over its page in Chromium; the rounds of all runs take turns.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import re
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.support.driver import Tab, browser  # noqa: E402

MOVES = 25  # of a hand, in a round
LISTEN = """
window.waits = [];
let moved = null;
document.querySelector("#plane").addEventListener("pointermove", () => { moved ??= performance.now(); }, true);
document.querySelector("#image").addEventListener("load", () => {
  if (moved !== null) waits.push(performance.now() - moved);
  moved = null;
});
"""


def start(run: str, stack: ExitStack) -> str:
    """Start the command and return the address that it prints."""
    call = [sys.executable, "-m", "vae_cli", "explore", f"checkpoint={run}", "open=false", "device=cpu"]
    process = stack.enter_context(subprocess.Popen(call, stdout=subprocess.PIPE, text=True))
    stack.callback(process.terminate)
    assert process.stdout
    found = re.search(r"http\S+", process.stdout.readline())
    assert found, run
    return found[0]


def over_http(address: str) -> list[float]:
    """Return the milliseconds that answers to random codes take."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    connection.request("GET", parts.path)
    page = connection.getresponse().read().decode()
    facts = json.loads(re.search(r'id="facts"[^>]*>(.*?)</script>', page, re.DOTALL)[1])  # type: ignore[index]
    waits = []
    for _ in range(MOVES):
        z = [random.gauss(0, 1) for _ in facts["start"]]
        began = time.perf_counter()
        body = json.dumps({"z": z} | ({"label": 0} if facts["labels"] else {}))
        connection.request("POST", f"{parts.path}image", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        answer.read()
        waits.append(1000 * (time.perf_counter() - began))
    connection.close()
    return waits


def by_hand(tab: Tab, address: str) -> list[float]:
    """Return the milliseconds from a movement over the plane to the image that follows it on the page."""
    tab.open(address)
    tab.until("document.querySelectorAll('#neighbours img').length > 0")
    tab.value(LISTEN)
    points = [tab.where("#plane", random.uniform(0.1, 0.9), random.uniform(0.1, 0.9)) for _ in range(MOVES + 1)]
    tab.mouse("mousePressed", *points[0])
    time.sleep(0.1)
    for number, point in enumerate(points[1:], 1):
        tab.mouse("mouseMoved", *point)
        tab.until(f"waits.length >= {number}")
    tab.mouse("mouseReleased", *points[-1], pressed=False)
    return list(tab.value("waits"))


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+")
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    waits: dict[str, tuple[list[float], list[float]]] = {run: ([], []) for run in options.runs}
    with ExitStack() as stack:
        addresses = {run: start(run, stack) for run in options.runs}
        tab = stack.enter_context(browser())
        tab.size(1240)
        for turn in range(options.rounds + 1):
            for run, address in addresses.items():
                found = over_http(address), by_hand(tab, address)
                if turn:  # the first round warms up
                    waits[run][0].extend(found[0])
                    waits[run][1].extend(found[1])
    print("| run | answer, median | 95% | hand to image, median | 95% |\n|---|---|---|---|---|")
    for run, both in waits.items():
        cells = [f"{value:.1f} ms" for times in both for value in (statistics.median(times), p95(times))]
        print(f"| {Path(run).name} | {' | '.join(cells)} |")


def p95(times: list[float]) -> float:
    """Return the 95th percentile."""
    return sorted(times)[int(0.95 * (len(times) - 1))]


if __name__ == "__main__":
    main()
