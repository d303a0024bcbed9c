"""report.html, comparison.html, vae-compare: what they say, that nothing leaves the file, how a browser shows them."""

import csv
import fcntl
import json
import os
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.decomposition import PCA

from tests.support.browser import look, needs_browser
from vae_cli import cli
from vae_cli.commands import compare, evaluate
from vae_cli.config import compose
from vae_cli.errors import UserError
from vae_cli.reporting import page, plots, run_page
from vae_cli.runs import reader
from vae_cli.training import run as training_run
from vae_cli.training.run import resume
from vae_cli.training.run import run as train

NARROW = ["encoder.hidden=[16]", "decoder.hidden=[16]", "device=cpu"]
MOST_SCRIPT = 1_500_000


def trained(directory, *settings, command="vae-train latent_dim=2"):
    composed = compose.compose("train", ["epochs=3", "latent_dim=2", *NARROW, *settings])
    assert train(composed, directory, command=command) == 0
    return directory


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    """Two completed runs, one scored; one that failed, one that was killed, one that is being trained."""
    folder = tmp_path_factory.mktemp("sweep")
    trained(folder / "0")
    trained(folder / "1", "latent_dim=9", "epochs=2", "seed=5")
    for name in ("2", "10", "3"):
        trained(folder / name, "epochs=1", "report=false")
    summary = json.loads((folder / "2" / "summary.json").read_text())
    failed = summary | {"status": "failed", "test": None, "error": "the loss was not finite: try a <b>smaller</b> lr"}
    (folder / "2" / "summary.json").write_text(json.dumps(failed))
    (folder / "10" / "summary.json").unlink()
    (folder / "3" / "summary.json").unlink()
    held = os.open(folder / "3" / "checkpoints" / ".lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(held, fcntl.LOCK_EX)
    evaluate.run(compose.compose("evaluate", [f"checkpoint={folder / '1'}", "num_importance_samples=20", "limit=50"]))
    yield folder
    os.close(held)


class Outward(HTMLParser):
    """What of a page leads out of it, how much script it has, and its text."""

    def __init__(self, text):
        super().__init__()
        self.out, self.script, self.text, self.inside = [], 0, "", None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.inside = tag
        for name, value in attrs:
            if name in ("src", "href", "srcset", "action", "data") and not (value or "").startswith(("data:", "#")):
                self.out.append((tag, name, value))
        self.out += [(tag, None, None)] if tag in ("link", "iframe", "object", "embed") else []

    def handle_endtag(self, tag):
        self.inside = None

    def handle_data(self, data):
        if self.inside == "script":
            self.script += len(data.encode())
        else:
            self.text += data


@pytest.fixture(scope="module")
def compared(sweep, tmp_path_factory):
    folder = tmp_path_factory.mktemp("compared")
    compare.run([str(sweep)], compose.compose("compare", [f"output={folder}"]))
    return folder


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_nothing_leads_out_of_a_page_and_its_script_is_small(name, sweep, compared):
    path = sweep / "0" / "report.html" if name == "report" else compared / "comparison.html"
    found = Outward(path.read_text())
    assert found.out == []
    assert 100_000 < found.script <= MOST_SCRIPT


def test_a_run_ends_with_a_page_that_says_what_was_trained_and_how_it_goes_on(sweep):
    assert 'class="badge completed">completed<' in (sweep / "0" / "report.html").read_text()
    text = Outward((sweep / "1" / "report.html").read_text()).text
    summary = json.loads((sweep / "1" / "summary.json").read_text())
    scored = json.loads((sweep / "1" / "evaluation.json").read_text())
    for expected in (
        *("completed", "digits", "1×8×8", "1,417 train", "MLPEncoder", "latent_dim: 9", f"{summary['parameters']:,}"),
        *(f"{summary['test']['elbo']:.2f}", f"{scored['log_likelihood']['value']:.2f}", "index_code_mi"),
        *("vae-train latent_dim=2", f"vae-train resume={sweep / '1'}", f"vae-evaluate checkpoint={sweep / '1'}"),
        *("50 images of digits, test split, 20 importance samples", "cpu", "torch"),
    ):
        assert expected in text, expected


def test_figures_lie_beside_the_page(sweep):
    for name in ("curves", "latents", "kl_per_dim", "traversals"):
        with Image.open(sweep / "0" / f"{name}.png") as picture:
            assert picture.width > 200 and len(np.unique(np.asarray(picture.convert("L")))) > 10
    assert not (sweep / "10" / "report.html").exists() and not (sweep / "10" / "curves.png").exists()


def test_what_changes_after_a_resumption_is_on_the_page(tmp_path):
    directory = trained(tmp_path / "run", "epochs=1", command="vae-train epochs=1")
    composed = compose.compose("train", [f"resume={directory}", "epochs=2"])
    resume(composed, directory, frozenset({"resume", "epochs"}), f"vae-train resume={directory} epochs=2")
    run = reader.Run(directory, "run")
    assert run.commands == ["vae-train epochs=1", f"vae-train resume={directory} epochs=2"]
    assert f"vae-train resume={directory} epochs=2" in (directory / "report.html").read_text()


def test_a_page_speaks_of_validation_and_of_every_dimension_only_where_it_may(tmp_path):
    texts = []
    for validation, dim in ((0, 21), (50, 20)):
        settings = [f"dataset.validation={validation}", f"latent_dim={dim}", "objective=iwae", "mc_samples=2"]
        run = trained(tmp_path / str(dim), *settings, "epochs=1", "report=false")
        Image.new("RGB", (40, 40)).save(run / "traversals.png")
        texts.append(run_page.write(run).read_text())
    assert "of validation the best one" in texts[1] and "objective's own, which chose the best weights" in texts[1]
    assert "of validation" not in texts[0] and "the bound is the objective's own.</p>" in texts[0]
    assert "along 20 of the 21 latent dimensions" in texts[0] and "along each latent dimension" in texts[1]


def test_a_run_that_fails_has_a_page_with_the_reason(tmp_path):
    with pytest.raises(UserError):
        trained(tmp_path / "run", "optimizer=sgd", "optimizer.lr=1e30", "epochs=30", "init_output_bias=false")
    page_ = (tmp_path / "run" / "report.html").read_text()
    assert 'class="badge failed">failed<' in page_
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["error"] in Outward(page_).text


def test_a_page_is_drawn_of_whatever_lies_in_a_directory(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset: [1, 2]\nlatent_dim: '</script><script>alert(1)</script>'\n")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "split": "train", "elbo": "x"}\nnonsense\n{"epoch": 2}\n[]\n')
    (tmp_path / "summary.json").write_text('{"status": "won", "test": 3, "data": {"shape": 5}, "versions": []}')
    (tmp_path / "evaluation.json").write_text('{"elbo": 5, "split": "test"}')
    (tmp_path / "samples.png").write_text("no picture")
    text = run_page.write(tmp_path).read_text()
    assert "<script>alert" not in text and "unfinished" in text and "<img" not in text


def test_numbers_are_readable():
    shown = [0, 12345, 0.5, -103.70561, 0.00012345, 1.5e9, None, True, "text", 3.14159, 0.027812]
    expected = ["0", "12,345", "0.5", "-103.71", "0.000123", "1.5e+09", "", "true", "text", "3.14", "0.0278"]
    assert [page.number(value) for value in shown] == expected


# vae-compare


def rows(folder):
    with (folder / "comparison.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_has_every_run_best_first_with_what_differs(sweep, compared):
    found = rows(compared)
    assert [row["run"] for row in found][2:] == ["2", "3", "10"]
    summaries = {n: json.loads((sweep / n / "summary.json").read_text()) for n in "01"}
    order = sorted("01", key=lambda n: -summaries[n]["test"]["elbo"])
    assert [row["run"] for row in found][:2] == order
    for row in found[:2]:
        assert float(row["elbo"]) == summaries[row["run"]]["test"]["elbo"]
        assert row["status"] == "completed" and row["error"] == ""
    by_name = {row["run"]: row for row in found}
    assert {name: by_name[name]["status"] for name in ("2", "3", "10")} == {
        "2": "failed",
        "3": "running",
        "10": "unfinished",
    }
    assert by_name["2"]["elbo"] == "" and "not finite" in by_name["2"]["error"]
    assert by_name["1"]["latent_dim"] == "9" and by_name["1"]["seed"] == "5" and by_name["1"]["log_likelihood"]
    assert "batch_size" not in found[0] and "report" not in found[0]


def test_the_terminal_shows_the_same_rows(sweep, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        cli.compare([str(sweep / "0"), str(sweep / "1"), "metric=kl"])
    out = capsys.readouterr().out
    assert ended.value.code == 0
    header, first, second, last = out.splitlines()
    assert header.split()[:4] == ["run", "status", "kl", "latent_dim"]
    assert float(first.split()[2]) >= float(second.split()[2])
    assert "comparison.csv" in last and sorted(p.name for p in tmp_path.iterdir()) == [
        "comparison.csv",
        "comparison.html",
    ]


def test_a_narrow_terminal_loses_the_last_columns_first():
    one = {"run": "a", "status": "completed", "elbo": -1.0, "latent_dim": 3, "kl": 2.0, "error": "why not"}
    columns = list(one)
    assert compare.terminal_table([one], columns).splitlines()[0].split() == columns
    assert compare.terminal_table([one], columns, 40, 4).splitlines()[0].split() == [c for c in columns if c != "kl"]


def test_patterns_and_overlapping_places_name_each_run_once(sweep, tmp_path):
    found = reader.find([str(sweep / "[01]"), str(sweep), str(sweep / "0")])
    assert [run.path.name for run in found] == ["0", "1", "2", "3", "10"]
    assert [run.name for run in found] == ["0", "1", "2", "3", "10"]


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


def test_places_on_an_axis():
    assert compare._places([1, 2, 3]) == [0, 0.5, 1]
    np.testing.assert_allclose(compare._places([1, 10, 100]), [0, 0.5, 1])
    assert compare._places(["b", "a", "c"]) == [0.5, 0, 1]
    assert compare._places([4, 4]) == [0.5, 0.5]
    assert compare._places([0, 100, 50]) == [0, 1, 0.5]


def test_texts_beside_an_axis_do_not_crowd():
    assert compare._apart([0, 0.01, 0.5, 0.52, 0.97, 1]) == [0, 0.5, 1]
    assert compare._apart([0.5]) == [0.5] and compare._apart([0, 0.01]) == [0, 0.01]


def test_settings_differ_only_where_runs_that_have_them_do(tmp_path):
    for name, prior in {"a": "{_target_: x.Normal}", "b": "{_target_: x.Flow, bins: 8}"}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(f"prior: {prior}\nseed: 1")
    assert reader.differing(reader.find([str(tmp_path)])) == ["prior"]


# Figures


@pytest.mark.parametrize("dim", [1, 2, 5])
@pytest.mark.parametrize("labels", [None, 3, 30])
def test_codes_of_any_dimension_and_labels_are_drawn(dim, labels):
    torch.manual_seed(0)
    y = None if labels is None else torch.arange(90) % labels
    picture = plots.latents(torch.randn(90, dim), y)
    assert picture.mode == "RGB" and len(picture.getcolors(1 << 20)) > 20


def test_codes_of_many_dimensions_are_seen_in_their_principal_components():
    values = np.random.default_rng(0).normal(size=(200, 6)) * [5, 3, 1, 1, 1, 1]
    found, names = plots._plane(values)
    fitted = PCA(2).fit(values)
    np.testing.assert_allclose(np.abs(found), np.abs(fitted.transform(values)), atol=1e-8)
    assert f"{fitted.explained_variance_ratio_[0]:.0%}" in names[0]


# In a browser

HOVER = """
  const svg = d.querySelector("#chart-elbo svg");
  svg.scrollIntoView();
  const box = svg.getBoundingClientRect(), x = box.left + box.width / 2, y = box.top + box.height / 2;
  for (const type of ["pointerover", "pointermove", "mouseover", "mousemove"]) {
    const event = type.startsWith("p") ? w.PointerEvent : w.MouseEvent;
    d.elementFromPoint(x, y).dispatchEvent(new event(type, {bubbles: true, view: w, clientX: x, clientY: y}));
    await pause(100);
  }
  return d.querySelector("#vg-tooltip-element")?.textContent ?? "";
"""


@needs_browser
@pytest.mark.parametrize("width", [400, 1100])
def test_a_report_is_drawn_without_errors_and_readable(width, sweep):
    found = look(sweep / "1" / "report.html", width, HOVER)
    assert found["console"] == []
    assert len(found["images"]) == 5 and all(found["images"])
    assert len(found["charts"]) == 5 and all(found["charts"])
    assert found["wide"] <= width and found["cut"] == []
    assert found["letters"] >= 13 and found["chart_letters"] >= 11
    assert "epoch" in found["script"] and "validation" in found["script"]


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


@needs_browser
@pytest.mark.parametrize("width", [400, 1100])
def test_a_comparison_is_drawn_without_errors_sorts_and_filters(width, compared):
    found = look(compared / "comparison.html", width, SORT)
    assert found["console"] == []
    assert len(found["images"]) == 5 and all(found["images"])
    assert len(found["charts"]) == 2 and all(found["charts"])
    assert found["wide"] <= width and found["cut"] == []
    assert found["letters"] >= 13 and found["chart_letters"] >= 11
    table = found["script"]
    assert table["start"][2:] == ["2", "3", "10"] and table["sorted"] == "ascending"
    assert table["up"][-1] == "1" and table["down"][0] == "1"
    assert table["run"] == ["0", "1", "2", "3", "10"]
    assert table["filtered"] == ["2"] and table["count"] == "1 of 5 runs"
    assert table["badges"] == ["completed", "completed", "failed", "running", "unfinished"]
    assert table["bold"] == 0


# What a review found


@pytest.mark.parametrize(
    "settings",
    [
        ["posterior=flow", "prior=vampprior", "prior.components=5"],
        ["posterior=flow", "posterior.kind=nsf", "prior=flow", "prior.kind=maf", "conditional=true", "latent_dim=1"],
        ["posterior=full_normal", "prior=mixture_of_normals", "latent_dim=3"],
    ],
)
def test_the_latent_pictures_are_drawn_of_every_kind_of_part(settings, tmp_path):
    trained(tmp_path, "epochs=1", *settings)
    assert "could not be written" not in (tmp_path / "train.log").read_text()
    assert (tmp_path / "latents.png").exists() and (tmp_path / "traversals.png").exists()
    assert ("label 0" in (tmp_path / "report.html").read_text()) == ("conditional=true" in settings)


def test_pictures_that_cannot_be_made_do_not_fail_a_training(tmp_path, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("vae_cli.evaluation.latent_codes.encode", out_of_memory)
    trained(tmp_path, "epochs=1")
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["test"]["elbo"] < 0
    assert "pictures of the latent space could not be written" in (tmp_path / "train.log").read_text()


def go_on(directory, epochs):
    composed = compose.compose("train", [f"resume={directory}", f"epochs={epochs}"])
    return resume(composed, directory, frozenset({"resume", "epochs"}))


def test_an_evaluation_of_other_weights_than_the_final_ones_is_not_shown(tmp_path):
    trained(tmp_path, "epochs=1")
    scoring = ["num_importance_samples=5", "limit=20"]
    evaluate.run(compose.compose("evaluate", [f"checkpoint={tmp_path}", *scoring]))
    assert reader.Run(tmp_path, "").number("log_likelihood") is not None
    go_on(tmp_path, 3)
    assert reader.Run(tmp_path, "").number("log_likelihood") is None
    assert "importance samples" not in (tmp_path / "report.html").read_text()
    evaluate.run(compose.compose("evaluate", [f"checkpoint={tmp_path}", *scoring]))
    assert reader.Run(tmp_path, "").number("log_likelihood") is not None


def test_a_run_that_goes_on_is_no_longer_completed(tmp_path, monkeypatch):
    trained(tmp_path, "epochs=1", "report=false")
    seen = []

    def killed(*_):
        seen.append(reader.Run(tmp_path, "").status)
        os._exit(9)

    if (child := os.fork()) == 0:
        monkeypatch.setattr(training_run, "fit", killed)
        monkeypatch.setattr(os, "_exit", lambda status, leave=os._exit: leave(10 if seen == ["running"] else 11))
        go_on(tmp_path, 3)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 10
    assert reader.Run(tmp_path, "").status == "unfinished"
    assert go_on(tmp_path, 3) == 0 and reader.Run(tmp_path, "").status == "completed"


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


def test_only_plain_files_are_read(tmp_path):
    os.mkfifo(tmp_path / "metrics.jsonl")
    (tmp_path / "config.yaml").symlink_to("/dev/zero")
    (tmp_path / "samples.png").symlink_to(tmp_path / "elsewhere.png")
    Image.new("L", (9, 9)).save(tmp_path / "elsewhere.png")
    run = reader.Run(tmp_path, "x")
    assert (run.metrics, run.settings, page.picture(tmp_path / "samples.png")) == ([], {}, None)


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


def test_curves_are_thinned_evenly_and_keep_their_ends():
    found = page.thinned([{"epoch": epoch, "value": 0} for epoch in range(5, 12_000, 7)], 100)
    epochs = [row["epoch"] for row in found]
    assert len(found) == 100 and epochs[0] == 5 and epochs[-1] == 11_996
    assert np.ptp(np.diff(epochs)) <= 7
    assert page.thinned(found, 100) == found


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


def test_a_single_code_is_drawn():
    assert plots.latents(torch.randn(1, 5), None).mode == "RGB"
