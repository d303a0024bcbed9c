"""Runs side by side: columns, CSV and lines for a terminal."""

import csv
import json

from vae_cli.build import options
from vae_cli.commands import compare
from vae_cli.config import compose
from vae_cli.reporting.comparison import Comparison
from vae_cli.runs.reader import Run, find


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
    row = {"run": "a", "status": "failed", "elbo": -1.0, "latent_dim": 3, "kl": 2.0, "error": "why not"}
    comparison = Comparison([], "elbo", ["latent_dim"], [row | {"bound": None}])
    assert comparison.as_text().splitlines()[0].split() == list(row)
    assert comparison.as_text(40).splitlines()[0].split() == [name for name in row if name != "kl"]


def comparison_of(*rows):
    defaults = {"run": "a", "status": "completed", "elbo": -1.0, "bound": None, "kl": 2.0, "encoder": "conv"}
    more = {"evaluated": "", "seconds": 1.0, "warnings": 0, "error": ""}
    return Comparison([], "elbo", ["encoder"], [defaults | more | row for row in rows])


def test_columns_that_say_nothing_are_left_out_of_the_table_and_stay_in_the_csv():
    comparison = comparison_of({"run": "a", "kl": 3.0}, {"run": "b"})
    assert comparison.columns == ["run", "elbo", "kl"]
    assert comparison.as_csv().splitlines()[0].split(",")[1:5] == ["status", "elbo", "bound", "kl"]
    assert comparison_of({"run": "a", "seconds": None}, {"run": "b"}).columns == ["run", "elbo", "seconds"]
    assert comparison_of({"status": "failed"}, {"status": "failed"}).columns == ["run", "status", "elbo"]
    assert comparison_of({}).columns == ["run", "elbo", "encoder", "kl", "seconds"]


def test_the_epochs_that_were_asked_for_and_trained_are_one_column_where_they_agree():
    def columns(trained):
        rows = [
            {"run": name, "status": "completed", "elbo": -1.0, "bound": -1.0, "epochs": done, "epochs (set)": planned}
            for name, planned, done in (("a", 2, 2), ("b", 3, trained))
        ]
        return Comparison([], "elbo", ["epochs"], rows).columns

    assert columns(3) == ["run", "elbo", "epochs (set)"]
    assert columns(1) == ["run", "elbo", "epochs (set)", "epochs"]


def test_warnings_are_counted_only_where_a_run_has_some():
    comparison = comparison_of({"warnings": 2}, {"run": "b"})
    assert comparison.columns == ["run", "elbo", "warnings"]
    assert [line.split()[-1] for line in comparison.as_text().splitlines()] == ["warnings", "2", "0"]


def test_a_table_fits_its_terminal_by_cutting_long_errors_off():
    runs = [{"run": "latent_dim-2__optimizer-adam__encoder-" + n, "error": "why " * 30, "encoder": n} for n in "ab"]
    text = comparison_of(*runs).as_text(80)
    assert max(map(len, text.splitlines())) <= 80 and "error" in text and "encoder" in text and "kl" not in text
    assert text.count("latent_dim-2__optimizer-adam__encoder-a") == 1  # by which a run is known
    assert max(map(len, comparison_of(*runs).as_text(120).splitlines())) > 80


def test_settings_are_in_the_words_that_were_typed(tmp_path):
    for name, node in (("a", options.option("encoder", "conv")), ("b", {"_target_": "my_package.Wide"})):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(json.dumps({"encoder": node}))
        (tmp_path / name / "summary.json").write_text(json.dumps({"status": "completed", "test": {"elbo": -1.0}}))
    comparison = Comparison.of(find([str(tmp_path)]), "elbo")
    assert [row["encoder"] for row in comparison.rows] == ["conv", "my_package.Wide"]
    assert comparison.label(comparison.runs[0]).startswith("a: encoder=conv")


def test_runs_of_different_data_are_said_to_have_nats_that_do_not_compare(tmp_path):
    for name, digest in (("a", "1"), ("b", "2"), ("c", "2")):
        (tmp_path / name).mkdir()
        summary = {"status": "completed", "test": {"elbo": -1.0}, "data": {"shape": [3], "train": 5, "digest": digest}}
        (tmp_path / name / "summary.json").write_text(json.dumps(summary))
    runs = {name: Run(tmp_path / name, name) for name in "abc"}
    assert "different data" in Comparison.of([runs["a"], runs["b"]], "elbo").warning
    assert Comparison.of([runs["b"], runs["c"]], "elbo").warning == ""


def test_samples_that_were_scored_otherwise_are_said_not_to_compare(tmp_path, capsys):
    def scored(name, distance, digest="a", n=100):
        (tmp_path / name).mkdir()
        (tmp_path / name / "summary.json").write_text(json.dumps({"status": "completed", "test": {"elbo": -1.0}}))
        samples = {"prior": {"frechet_distance": {"value": distance}}}
        generation = {"features": {"digest": digest}, "n": n, "drawn": False, "samples": samples}
        (tmp_path / name / "evaluation.json").write_text(json.dumps({"split": "test", "generation": generation}))
        return Run(tmp_path / name, name)

    runs = [scored("a", 3.0), scored("b", 2.0), scored("c", 1.0, digest="b"), scored("d", 4.0, n=50)]
    alike = Comparison.of(runs[:2], "frechet_distance")
    assert [row["run"] for row in alike.rows] == ["b", "a"] and alike.warning == ""  # the lowest first
    assert alike.columns[:2] == ["run", "frechet_distance"]
    expected = "some samples were scored in other features: their distances do not compare"
    assert Comparison.of(runs[:3], "elbo").warning == expected
    assert "in other features and of another number" in Comparison.of(runs, "elbo").warning
    compare.run([str(tmp_path)], compose.compose("compare", ["metric=frechet_distance", f"output={tmp_path / 'out'}"]))
    out = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in out[1:5]] == ["c", "b", "a", "d"] and any("note: some" in line for line in out)
