"""Runs side by side: columns, CSV and lines for a terminal."""

import csv
import json

from vae_cli.commands import compare
from vae_cli.config import compose
from vae_cli.reporting.comparison import Comparison


def rows(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_every_run_best_first_with_what_differs(sweep, compared):
    table = rows(compared)
    assert [row["run"] for row in table][2:] == ["2", "3", "10"]
    summaries = {n: json.loads((sweep / n / "summary.json").read_text()) for n in "01"}
    order = sorted("01", key=lambda n: -summaries[n]["test"]["elbo"])
    assert [row["run"] for row in table][:2] == order
    for row in table[:2]:
        assert float(row["elbo"]) == summaries[row["run"]]["test"]["elbo"]
        assert row["status"] == "completed" and row["error"] == ""
    by_name = {row["run"]: row for row in table}
    assert {name: by_name[name]["status"] for name in ("2", "3", "10")} == {
        "2": "failed",
        "3": "running",
        "10": "unfinished",
    }
    assert by_name["2"]["elbo"] == "" and "not finite" in by_name["2"]["error"]
    assert by_name["1"]["latent_dim"] == "9" and by_name["1"]["seed"] == "5" and by_name["1"]["log_likelihood"]
    assert "batch_size" not in table[0] and "report" not in table[0]


def test_settings_take_the_place_of_no_result(sweep, tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        hijack = {key: f"{key}{name}" for key in ("elbo", "run", "status", "epochs")}
        settings = hijack | {f"\x1b[31mred{name}": 1, "=x": f"={name}"}
        (tmp_path / name / "config.yaml").write_text(json.dumps(settings))
        (tmp_path / name / "summary.json").write_text('{"status": "failed", "test": {"elbo": -3.5}, "epochs": 4}')
    compare.run([str(tmp_path)], compose.compose("compare", [f"output={tmp_path}"]))
    for row, name in zip(rows(tmp_path), "ab"):
        assert (row["run"], row["status"], row["elbo"], row["epochs"]) == (name, "failed", "-3.5", "4")
        assert row["elbo (set)"] == f"elbo{name}" and row["=x"] == f"'={name}"
    assert "\x1b" not in capsys.readouterr().out


def test_a_narrow_terminal_loses_the_last_columns_first():
    row = {"run": "a", "status": "completed", "elbo": -1.0, "latent_dim": 3, "kl": 2.0, "error": "why not"}
    comparison = Comparison([], "elbo", ["latent_dim"], [row | {"bound": None}])
    assert comparison.as_text().splitlines()[0].split() == list(row)
    assert comparison.as_text(40).splitlines()[0].split() == [name for name in row if name != "kl"]
