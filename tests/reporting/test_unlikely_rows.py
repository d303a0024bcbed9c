"""The rows that a model finds least likely."""

import numpy as np

from vae_cli.data.columns import Column
from vae_cli.reporting import unlikely_rows

COLUMNS = [Column("a", "real"), Column("b", "categorical", ("x", "y")), Column("c", "real")]


def test_the_lowest_rows_come_first_each_with_what_its_reconstruction_misses_by_most(tmp_path):
    random, rows = np.random.default_rng(0), 50
    a, c, y = random.normal(size=rows), random.normal(size=rows), random.random(rows) < 0.5
    x = np.column_stack([a, ~y, y, 100 * c])
    shown = x + np.column_stack([0.1 * random.normal(size=rows), np.zeros((rows, 2)), random.normal(size=rows)])
    shown[7, 3] += 30  # of an error of about 1
    x[9, 0], shown[9, 1:3] = np.nan, x[9, 2:0:-1]
    elbo = np.zeros(rows)
    elbo[7], elbo[9] = -20, -10
    text = unlikely_rows.table(x, shown, elbo, np.arange(rows) + 1000, COLUMNS)
    (tmp_path / unlikely_rows.FILE).write_text(text)
    lines = unlikely_rows.stored(tmp_path)
    assert (lines[0]["row"], lines[0]["column"], float(lines[0]["elbo"])) == ("1007", "c", -20)
    assert float(lines[0]["reconstruction"]) - float(lines[0]["value"]) > 25 and float(lines[0]["error"]) > 5
    of_second = [line for line in lines if line["row"] == "1009"]
    assert of_second[0]["column"] == "b" and {of_second[0]["value"], of_second[0]["reconstruction"]} == {"x", "y"}
    assert [line["column"] for line in of_second] == ["b", "c"]  # what is missing is not missed
    assert len({line["row"] for line in lines}) == unlikely_rows.ROWS


def test_a_broken_table_is_none(tmp_path):
    assert unlikely_rows.stored(tmp_path) == []
    (tmp_path / unlikely_rows.FILE).write_text("row,elbo\n1\n2,3,4\n")
    assert unlikely_rows.stored(tmp_path) == []
