"""vae-compare: what it prints and writes, and what it refuses."""

import csv

import pytest

from tests.support.pages import sweep_of_five
from vae_cli import cli
from vae_cli.commands import compare
from vae_cli.config import compose
from vae_cli.reporting import run_page


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    with sweep_of_five(tmp_path_factory.mktemp("sweep")) as folder:
        yield folder


def rows(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_terminal_shows_the_same_rows(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.compare([str(sweep / "0"), str(sweep / "1"), "metric=kl"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    header, first, second, csv, page = out.splitlines()
    assert header.split()[:3] == ["run", "kl", "latent_dim"]
    assert float(first.split()[1]) >= float(second.split()[1])
    assert (
        "comparison.csv" in csv
        and "comparison.html" in page
        and sorted(p.name for p in tmp_path.iterdir())
        == [
            "comparison.csv",
            "comparison.html",
        ]
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name run directories"),
        (["nowhere"], "nowhere does not exist"),
        (["no*"], "matches no directory"),
        (["EMPTY"], "no run of vae-train in it"),
        (["FILE"], "is a file"),
        (["RUN", "metric=elbow"], "did you mean elbo"),
        (["RUN", "metric=log_likelihood"], "run vae-evaluate"),
        (["RUN", "metric=frechet_distance"], "run vae-evaluate checkpoint=DIR generation=true"),
        (["RUN", "output=FILE"], "cannot be written"),
        (["RUN", "out=x"], "unknown key out: did you mean output"),
        (["RUN", "-m"], "only vae-train sweeps"),
        (["RUN", "--sort"], "unknown flag"),
    ],
)
def test_what_cannot_be_compared_is_answered_in_one_line(words, message, sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    places = {"EMPTY": str(tmp_path / "empty"), "FILE": str(tmp_path / "file"), "RUN": str(sweep / "0")}
    words = [places.get(word, word) for word in words]
    with pytest.raises(SystemExit) as ended:
        cli.compare([word.replace("=FILE", f"={tmp_path / 'file'}") for word in words])
    err = capsys.readouterr().err
    assert ended.value.code == 1 and len(err.splitlines()) == 1 and message in err


def test_a_directory_with_an_equals_sign_in_its_name_is_a_place(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").symlink_to(sweep)
    with pytest.raises(SystemExit) as ended:
        cli.compare(["a=b"])
    assert ended.value.code == 0 and len(rows(tmp_path)) == 5


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("config.yaml", "latent_dim: 2001-99-99"),
        ("config.yaml", "[" * 3000),
        ("config.yaml", "a: &a {b: *a}"),
        ("config.yaml", "\n".join(["a0: &a0 x", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 31))])),
        ("summary.json", '{"status": "completed", "test": {"elbo": 1' + "0" * 400 + "}}"),
        ("metrics.jsonl", "[" * 100_000),
        ("evaluation.json", '{"elbo": {"n": "many"}, "split": "test", "path": null}'),
    ],
)
def test_a_strange_file_harms_no_other_run(name, text, sweep, tmp_path):
    (tmp_path / "strange").mkdir()
    (tmp_path / "strange" / "config.yaml").write_text("latent_dim: 7")
    (tmp_path / "strange" / name).write_text(text)
    compare.run([str(sweep / "0"), str(tmp_path / "strange")], compose.compose("compare", [f"output={tmp_path}"]))
    assert [row["run"].rpartition("/")[2] for row in rows(tmp_path)][0] == "0"
    run_page.write(tmp_path / "strange")


def test_bounds_are_shown_where_they_sort_or_differ(sweep, tmp_path, capsys):
    compare.run([str(sweep)], compose.compose("compare", [f"output={tmp_path}"]))
    assert "bound" not in capsys.readouterr().out.split()
    compare.run([str(sweep)], compose.compose("compare", [f"output={tmp_path}", "metric=bound"]))
    assert capsys.readouterr().out.split()[:3] == ["run", "status", "bound"]


def test_patterns_may_hold_an_equals_sign(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lr").mkdir()
    (tmp_path / "lr" / "a=b").symlink_to(sweep / "0")
    with pytest.raises(SystemExit) as ended:
        cli.compare(["lr/a=*"])
    assert ended.value.code == 0
