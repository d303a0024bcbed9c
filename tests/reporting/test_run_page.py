"""report.html: what it says, that nothing leads out of the file, how a browser shows it."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.support.browser import look, needs_browser
from tests.support.pages import Page, trained
from vae_cli.commands import evaluate
from vae_cli.config import compose
from vae_cli.errors import UserError
from vae_cli.reporting import run_page
from vae_cli.runs import reader
from vae_cli.training.run import run as train

MOST_SCRIPT = 1_500_000

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


@pytest.mark.parametrize("name", ["report", "comparison"])
def test_nothing_leads_out_of_a_page_and_its_script_is_small(name, sweep, compared):
    path = sweep / "0" / "report.html" if name == "report" else compared / "comparison.html"
    written = Page(path.read_text())
    assert written.references == []
    assert 100_000 < written.script <= MOST_SCRIPT


def test_a_run_ends_with_a_page_that_says_what_was_trained_and_how_it_goes_on(sweep):
    assert 'class="badge completed">completed<' in (sweep / "0" / "report.html").read_text()
    text = Page((sweep / "1" / "report.html").read_text()).text
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
    train(composed, directory, frozenset({"resume", "epochs"}), f"vae-train resume={directory} epochs=2")
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
    assert "validation's best one" in texts[1] and "objective's own, which chose the best weights" in texts[1]
    assert "validation's" not in texts[0] and "the bound is the objective's own.</p>" in texts[0]
    assert "along 20 of the 21 latent dimensions" in texts[0] and "along each latent dimension" in texts[1]


def test_a_run_that_fails_has_a_page_with_the_reason(tmp_path):
    with pytest.raises(UserError):
        trained(tmp_path / "run", "optimizer=sgd", "optimizer.lr=1e30", "epochs=30", "init_output_bias=false")
    page_ = (tmp_path / "run" / "report.html").read_text()
    assert 'class="badge failed">failed<' in page_
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["error"] in Page(page_).text


def test_warnings_stand_at_the_top_of_the_page_and_nothing_where_there_are_none(tmp_path):
    for warnings in (["the codes <b>collapsed</b>", "few images"], [], None, [3]):
        (tmp_path / "summary.json").write_text(json.dumps({"status": "completed", "warnings": warnings}))
        text = run_page.write(tmp_path).read_text()
        texts = [text for text in warnings or [] if isinstance(text, str)]
        assert text.count('<p class="warning">') == len(texts)
        assert all(f"Warning: {warning}" in Page(text).text.partition("Numbers")[0] for warning in texts)


def test_a_page_is_drawn_of_whatever_lies_in_a_directory(tmp_path):
    (tmp_path / "config.yaml").write_text("dataset: [1, 2]\nlatent_dim: '</script><script>alert(1)</script>'\n")
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "split": "train", "elbo": "x"}\nnonsense\n{"epoch": 2}\n[]\n')
    (tmp_path / "summary.json").write_text('{"status": "won", "test": 3, "data": {"shape": 5}, "versions": []}')
    (tmp_path / "evaluation.json").write_text('{"elbo": 5, "split": "test"}')
    (tmp_path / "samples.png").write_text("no picture")
    text = run_page.write(tmp_path).read_text()
    assert "<script>alert" not in text and "unfinished" in text and "<img" not in text


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param(["posterior=flow", "prior=vampprior", "prior.components=5"], marks=pytest.mark.slow),
        ["posterior=flow", "posterior.kind=nsf", "prior=flow", "prior.kind=maf", "conditional=true", "latent_dim=1"],
        pytest.param(["posterior=full_normal", "prior=mixture_of_normals", "latent_dim=3"], marks=pytest.mark.slow),
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
    assert "latent numbers and pictures could not be written" in (tmp_path / "train.log").read_text()


def go_on(directory, epochs):
    composed = compose.compose("train", [f"resume={directory}", f"epochs={epochs}"])
    return train(composed, directory, frozenset({"resume", "epochs"}))


@pytest.mark.slow
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


@needs_browser
@pytest.mark.parametrize("width", [400, 1100])
def test_a_report_is_drawn_without_errors_and_readable(width, sweep):
    page = look(sweep / "1" / "report.html", width, HOVER)
    assert page["console"] == []
    assert len(page["images"]) == 5 and all(page["images"])
    assert len(page["charts"]) == 5 and all(page["charts"])
    assert page["wide"] <= width and page["cut"] == []
    assert page["letters"] >= 13 and page["chart_letters"] >= 11
    assert "epoch" in page["script"] and "validation" in page["script"]


def test_a_hierarchys_page_has_its_levels_and_says_which_one_a_picture_shows(tmp_path):
    ladder = ["model=ladder", "model.latents=[5,3]", "model.widths=[16,12]"]
    run = trained(tmp_path / "run", "epochs=1", *ladder, command="vae-train model=ladder")
    written = Page((run / "report.html").read_text())
    text = written.text
    assert "digits, 8 latent dimensions in 2 levels" in text
    assert "keep the levels named at the left of their row" in text
    assert "of z2, the top level" in text and "lie in z2, the top level" in text
    assert "kl_levels" in (run / "report.html").read_text()
    names = {path.name for path in run.glob("*.png")}
    assert names >= {"levels.png", "kl_per_level.png", "traversals.png", "latents.png", "curves.png"}
    assert "kl_per_dim.png" not in names


def test_a_flat_models_page_has_no_levels(sweep):
    assert "kl_levels" not in (sweep / "0" / "report.html").read_text()
    assert not (sweep / "0" / "levels.png").exists()


def test_scores_of_samples_stand_in_a_table_of_their_own(tmp_path):
    run = trained(tmp_path / "run", "epochs=1")
    own = tmp_path / "run" / "evaluation.json"
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=2", "limit=20"]))
    assert "Generation:" not in (run / "report.html").read_text()
    numbers = {"frechet_distance": {"value": 12.345, "stderr": None}, "recall": {"value": 0.5, "stderr": 0.25}}
    features = {"name": "<b>mine</b>", "n_features": 7}
    generation = {"features": features, "n": 20, "k": {"recall": 3}, "biased": True, "samples": {"prior": numbers}}
    own.write_text(json.dumps(json.loads(own.read_text()) | {"generation": generation}))
    text = run_page.write(run).read_text()
    shown = Page(text).text
    assert "in 7 features (<b>mine</b>)" in shown and "<b>mine</b>" not in text
    for expected in (
        "samples, prior",
        "frechet_distance",
        "12.35",
        "± 0.25",
        "Recall with k = 3.",
        "So few images make",
    ):
        assert expected in shown, expected
