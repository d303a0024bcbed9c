"""Charts of the KL of each level."""

from vae_cli.reporting import charts, level_charts


def records(split, *values):
    names = [f"kl_z{number}" for number in (1, 2, 3)]
    return [{"epoch": epoch, "split": split, **dict(zip(names, kl))} for epoch, kl in enumerate(values, start=1)]


def values(chart):
    [rows] = chart["datasets"].values()
    return rows


def test_levels_lie_one_above_the_other_with_z1_lowest_and_the_validation_numbers():
    lines = records("train", (9, 9, 9), (9, 9, 9)) + records("validation", (4, 2, 1), (3, 2, -0.01))
    chart = charts.to_spec(level_charts.kl_over_epochs(lines, ["z1", "z2", "z3"]))
    rows = values(chart)
    assert {row["level"]: row["value"] for row in rows if row["epoch"] == 2} == {"z1": 3, "z2": 2, "z3": -0.01}
    assert [row["order"] for row in rows if row["epoch"] == 1] == [0, 1, 2]
    assert chart["encoding"]["y"]["scale"]["domain"] == [0, 7]
    assert min(row["height"] for row in rows) == 0  # a negative area would lie over the others
    assert chart["encoding"]["color"]["sort"] == ["z3", "z2", "z1"] and "validation" in chart["title"]
    picture = charts.to_png(level_charts.kl_over_epochs(lines[:2], ["z1", "z2", "z3"]))
    assert picture.width > 300


def test_without_numbers_there_is_no_chart_and_without_validation_it_is_the_trainings():
    assert level_charts.kl_over_epochs([{"epoch": 1, "split": "train", "kl": 3}], ["z1", "z2"]) is None
    chart = charts.to_spec(level_charts.kl_over_epochs(records("train", (1, 2, 3)), ["z1", "z2", "z3"]))
    assert "train" in chart["title"] and chart["mark"]["type"] == "bar"  # of one epoch an area has no width


def test_bars_of_the_levels_have_their_numbers_and_the_sum():
    chart = charts.to_spec(level_charts.kl_per_level({"z1": 5.0, "z2": 1.5, "z3": -0.004}))
    assert "6.50 in all" in chart["title"]
    assert [(row["kl"], row["text"]) for row in values(chart)] == [(5.0, "5.00"), (1.5, "1.50"), (0, "-0.00")]
