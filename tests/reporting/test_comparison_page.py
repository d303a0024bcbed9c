"""comparison.html: places on its axes, and how a browser shows, sorts and filters it."""

import json

import numpy as np
import pytest

from tests.support.browser import look, needs_browser
from tests.support.pages import Page
from vae_cli.reporting.comparison import Comparison
from vae_cli.reporting.comparison_page import axis_positions, render, spaced
from vae_cli.runs.reader import find

SORT = """
  const shown = () => [...d.querySelectorAll("#runs tbody tr")].filter(r => !r.hidden);
  const names = () => shown().map(r => r.cells[0].textContent.trim());
  const head = name => [...d.querySelectorAll("#runs th")].find(h => h.textContent === name);
  const found = {start: names()};
  head("latent_dim").querySelector("button").click(); found.up = names(); found.sorted = head("latent_dim").ariaSort;
  head("latent_dim").querySelector("button").click(); found.down = names();
  head("run").querySelector("button").click(); found.run = names();
  const box = d.getElementById("filter");
  box.value = "failed"; box.dispatchEvent(new w.Event("input")); found.filtered = names();
  found.count = d.getElementById("count").textContent;
  found.badges = [...d.querySelectorAll("#runs .badge")].map(b => b.textContent).sort();
  found.bold = d.querySelectorAll("td b").length;
  return found;
"""


def test_places_on_an_axis():
    assert axis_positions([1, 2, 3]) == [0, 0.5, 1]
    np.testing.assert_allclose(axis_positions([1, 10, 100]), [0, 0.5, 1])
    assert axis_positions(["b", "a", "c"]) == [0.5, 0, 1]
    assert axis_positions([4, 4]) == [0.5, 0.5]
    assert axis_positions([0, 100, 50]) == [0, 1, 0.5]


def test_texts_beside_an_axis_do_not_crowd():
    assert spaced([0, 0.01, 0.5, 0.52, 0.97, 1]) == [0, 0.5, 1]
    assert spaced([0.5]) == [0.5] and spaced([0, 0.01]) == [0, 0.01]


@needs_browser
@pytest.mark.parametrize("width", [400, 1100])
def test_a_comparison_is_drawn_without_errors_sorts_and_filters(width, compared):
    page = look(compared / "comparison.html", width, SORT)
    assert page["console"] == []
    assert len(page["images"]) == 5 and all(page["images"])
    assert len(page["charts"]) == 2 and all(page["charts"])
    assert page["wide"] <= width and page["cut"] == []
    assert page["letters"] >= 13 and page["chart_letters"] >= 11
    table = page["script"]
    assert table["start"][2:] == ["2", "3", "10"] and table["sorted"] == "ascending"
    assert table["up"][-1] == "1" and table["down"][0] == "1"
    assert table["run"] == ["0", "1", "2", "3", "10"]
    assert table["filtered"] == ["2"] and table["count"] == "1 of 5 runs"
    assert table["badges"] == ["completed", "completed", "failed", "running", "unfinished"]
    assert table["bold"] == 0


def test_a_runs_warnings_stand_below_the_table_with_its_name(tmp_path):
    for name, warnings in (("a", ["the codes <b>collapsed</b>"]), ("b", [])):
        (tmp_path / name).mkdir()
        summary = {"status": "completed", "test": {"elbo": -1.0}, "warnings": warnings}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    text = render(Comparison.of(find([str(tmp_path)]), "elbo"))
    assert text.count('<p class="warning">') == 1 and "a: the codes <b>collapsed</b>" in Page(text).text
