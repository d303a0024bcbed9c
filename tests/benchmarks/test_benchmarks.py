"""The figures of `make bench` are what they are said to be."""

import json
from pathlib import Path

import pytest
import torch

BENCHMARKS = Path(__file__).parent


@pytest.fixture
def timing(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import timing

    return timing


@pytest.fixture
def workloads(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    import workloads

    return workloads


def test_ratios_are_medians_of_each_rounds_ratio(timing):
    """The machine is ten times slower in one round: the ratio of medians would be 3, each round's is 2."""
    times = {"ours": [2.0, 20.0, 6.0], "floor": [1.0, 10.0, 3.0], "peer": [4.0, 40.0, 12.0]}
    found = timing.row("step", times, "ours", "floor")
    assert found.over_floor == 2 and found.as_fast == {"peer": 2}
    assert (found.ours, found.floor, found.peers) == (6000, 3000, {"peer": 12000})


@pytest.mark.parametrize(
    ("found", "limit", "at_most", "met"), [(1.2, 1.3, True, True), (1.4, 1.3, True, False), (4.2, 4, False, True)]
)
def test_goals_say_whether_they_are_met_in_the_table_and_the_json(timing, tmp_path, found, limit, at_most, met):
    row = timing.Row("step", "ms", 5.0, goals=[timing.Goal("over the floor", found, limit, at_most)])
    text = timing.table([row])
    assert ("MISSED" not in text) == met and "over the floor" in text
    timing.write(tmp_path / "x" / "bench.json", [row], {"threads": 2})
    read = json.loads((tmp_path / "x" / "bench.json").read_text())
    assert read["threads"] == 2 and read["rows"][0]["goals"][0]["met"] is met


def test_actions_take_turns_and_the_first_round_is_not_counted(timing):
    order = []
    times = timing.interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2, calls=2)
    assert "".join(order) == "aabb" * 3 and [len(found) for found in times.values()] == [2, 2]


def test_the_floor_multiplies_what_a_step_multiplies(workloads):
    """torch's own count of a step of the multilayer perceptron, and of the products alone."""
    facts = workloads.DataFacts("m", (1, 28, 28), "binary", 0, 256)
    split = workloads.Split((torch.rand(256, 1, 28, 28) < 0.1).to(torch.uint8), None, 1.0)
    trained = workloads.training(workloads.Data(split, None, split, facts), torch.device("cpu"), *workloads.MLP)
    floor = workloads.products(128, torch.float32, torch.device("cpu"))
    expected = 2 * 128 * (3 * sum(m * n for m, n in workloads.MLP_SIZES) - 784 * 400)
    assert workloads.operations(floor) == expected
    assert workloads.operations(workloads.steps(trained)) == expected
