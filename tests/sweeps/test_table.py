"""The tables hold a row for every job that has ended, and are whole whenever they are read."""

import csv
import json
import threading

from tests.support.sweeping import table
from vae_cli.sweeps.job import assign_directories, save_job
from vae_cli.sweeps.table import COLUMNS, Column, terminal_table, write_tables


def ended(path, number, **summary):
    job = save_job(path / f"j{number}", number, ["epochs=3", f"optimizer.lr=0.00{number}123456789"], ["optimizer.lr"])
    (job.path / "summary.json").write_text(json.dumps({"status": "completed", **summary}))
    return job


def test_a_job_that_has_ended_has_a_row_in_both_files(tmp_path):
    ended(tmp_path, 1, test={"elbo": -80.5}, seconds=2.0)
    save_job(tmp_path / "pending", 2, ["a=1"], ["a"])
    write_tables(tmp_path)
    [row] = table(tmp_path)
    assert list(row) == ["job", "status", "overrides", "test_elbo", "seconds", "directory", "error"]
    assert list(row.values()) == [
        *("1", "completed", "epochs=3 optimizer.lr=0.001123456789", "-80.5", "2.0", str(tmp_path / "j1"), "")
    ]
    [line] = (tmp_path / "sweep.jsonl").read_text().splitlines()
    assert json.loads(line) == {**row, "job": 1, "test_elbo": -80.5, "seconds": 2.0}


def test_the_terminals_table_is_aligned_with_reasons_below_and_numbers_shortened(tmp_path):
    jobs = [ended(tmp_path, 1, test={"elbo": -1080.5}, seconds=2), ended(tmp_path, 2, status="failed", error="no luck")]
    assert terminal_table(jobs).splitlines() == [
        "job  status     test elbo  seconds  directory  settings",
        "  1  completed  -1,080.50        2  j1         optimizer.lr=0.001123",
        "  2  failed                         j2         optimizer.lr=0.002123",
        "     └ no luck",
    ]
    assert all(len(line) <= 40 for line in terminal_table(jobs, width=40).splitlines())
    assert terminal_table([]).startswith("job  status")


def test_a_new_column_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_cli.sweeps.table.COLUMNS", (*COLUMNS, Column("epochs", lambda job: job.run.epochs)))
    job = ended(tmp_path, 1, epochs=7)
    write_tables(tmp_path)
    assert table(tmp_path)[0]["epochs"] == "7"
    assert terminal_table([job]).splitlines()[0] == "job  status     test elbo  seconds  epochs  directory  settings"


def test_the_tables_grow_and_are_whole_while_several_jobs_write_them(tmp_path):
    jobs = assign_directories(tmp_path, [[f"seed={n}"] for n in range(24)], ["seed"])

    def end(some):
        for job in some:
            job.write_summary("failed", 'line\nbreak, "comma"')
            write_tables(tmp_path)

    writers = [threading.Thread(target=end, args=(jobs[start::4],)) for start in range(4)]
    write_tables(tmp_path)
    for writer in writers:
        writer.start()
    counts = [0]
    while any(writer.is_alive() for writer in writers):
        rows = table(tmp_path)
        lines = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
        assert all(row["error"] == 'line break, "comma"' for row in [*rows, *lines]) and len(rows) >= counts[-1]
        counts.append(len(rows))
    assert [row["job"] for row in table(tmp_path)] == [str(number) for number in range(24)]
    assert len(set(counts)) > 2


def test_a_table_that_cannot_be_written_is_reported_and_ends_nothing(tmp_path, capsys):
    ended(tmp_path, 1)
    (tmp_path / "sweep.csv").mkdir()
    (tmp_path / "sweep.csv/x").touch()
    write_tables(tmp_path)
    assert f"{tmp_path / 'sweep.csv'} cannot be written" in capsys.readouterr().err


def test_the_csv_quotes_what_a_spreadsheet_would_split(tmp_path):
    save_job(tmp_path / "j", 0, ["encoder.hidden=[8,4]"], ["encoder.hidden"]).write_summary("failed", 'a "b", c')
    write_tables(tmp_path)
    with (tmp_path / "sweep.csv").open(newline="") as file:
        assert [row["error"] for row in csv.DictReader(file)] == ['a "b", c']
