"""vae-evaluate disentanglement=true: the scores of a run, of other runs beside it, and refusals."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.support.pages import Page, trained
from vae_cli.build import trained as built
from vae_cli.commands import compare, disentanglement, encode, evaluate
from vae_cli.config import compose
from vae_cli.errors import ConfigError, DataError, UserError
from vae_cli.inference.inputs import load_data
from vae_cli.reporting import run_page
from vae_cli.runs import checkpoint, reader

SCORES = [name for name in reader.DISENTANGLEMENT_METRICS if name != "udr"]
NAMES = ["kind", "size", "place"]
LEVELS = ["model=ladder", "model.latents=[3,2]", "model.widths=[16,12]"]
QUICK = ["num_importance_samples=2", "trees=extra_trees", "disentanglement=true"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Three runs of images with factors, one of digits, and one of a hierarchy."""
    folder, random = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    factors = np.stack([np.repeat(np.arange(3), 500), *random.integers(4, size=(2, 1500))], 1)
    values = np.concatenate([factors, factors**2], 1) @ random.normal(size=(6, 16)) + random.normal(size=(1500, 16))
    np.savez(
        folder / "bits.npz", train=(values > 0).reshape(-1, 4, 4), train_labels=factors, factor_names=np.array(NAMES)
    )
    data = [
        "dataset=arrays",
        f"dataset.path={folder / 'bits.npz'}",
        "latent_dim=3",
        "epochs=1",
        "batch_size=500",
        "report=false",
    ]
    for number, further in enumerate(([], [], ["latent_dim=4"])):
        trained(folder / "sweep" / str(number), *data, *further, f"seed={number}")
    trained(folder / "digits", "epochs=1", "report=false")
    trained(folder / "levels", *data, *LEVELS)
    return folder


def evaluated(run, *settings):
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", *QUICK, *settings]))
    return json.loads((run / "evaluation.json").read_text())


def test_the_scores_are_in_the_file_the_table_the_page_and_the_comparison(runs, tmp_path, capsys):
    run = runs / "sweep" / "0"
    run_page.write(run)
    scores = evaluated(run)["disentanglement"]
    assert set(SCORES) <= scores.keys() and scores["mig"]["n"] == 150 and "udr" not in scores
    assert scores["variant"]["codes"] == "means of q(z|x)" and "randomized" in scores["variant"]["dci"]
    assert list(scores["mig_by_factor"]) == NAMES
    printed = capsys.readouterr().out
    assert all(name in printed for name in SCORES) and "20 bins of equal width" in printed
    text = Page((run / "report.html").read_text()).text
    assert "Disentanglement" in text and "dci_completeness" in text and (run / "factors.png").stat().st_size > 1000
    compare.run([str(runs / "sweep")], compose.compose("compare", [f"output={tmp_path}", "metric=mig"]))
    first, second = (tmp_path / "comparison.csv").read_text().splitlines()[:2]
    row = dict(zip(first.split(","), second.split(",")))
    assert float(row["mig"]) == scores["mig"]["value"] and float(row["sap"]) == scores["sap"]["value"]


@pytest.mark.slow
def test_runs_with_scores_of_unlike_variants_are_not_compared_without_a_word(runs, tmp_path, capsys):
    for number, settings in enumerate(([], ["trees=random_forest"])):
        evaluated(runs / "sweep" / str(number), *settings)
        compare.run([str(runs / "sweep")], compose.compose("compare", [f"output={tmp_path}", "metric=mig"]))
        assert ("unlike variants" in capsys.readouterr().out) == bool(number)


def test_factors_are_columns_beside_the_codes(runs, tmp_path):
    for name in ("codes.csv", "codes.npz"):
        given = [f"checkpoint={runs / 'sweep' / '0'}", "limit=20", f"output={tmp_path / name}"]
        encode.run(compose.compose("encode", given))
    factors = np.load(tmp_path / "codes.npz")["factors"]
    header, *lines = (tmp_path / "codes.csv").read_text().splitlines()
    assert header.split(",")[:4] == ["row", *NAMES] and factors.shape == (20, 3)
    assert [line.split(",")[1:4] for line in lines] == factors.astype(str).tolist()


def test_a_factor_that_is_named_as_another_column_has_a_column_of_its_own(runs, tmp_path):
    stored = dict(np.load(runs / "bits.npz")) | {"factor_names": np.array(["row", "factor_row", "z1_mean"])}
    np.savez(tmp_path / "names.npz", **stored)
    data = ["dataset=arrays", f"dataset.path={tmp_path / 'names.npz'}", "latent_dim=2", "epochs=1", "report=false"]
    given = [f"checkpoint={trained(tmp_path / 'run', *data)}", "limit=20", f"output={tmp_path / 'codes.csv'}"]
    encode.run(compose.compose("encode", given))
    header, *lines = (tmp_path / "codes.csv").read_text().splitlines()
    names = ["row", "factor_factor_row", "factor_row", "factor_z1_mean", "z0_mean", "z1_mean", "z0_std", "z1_std"]
    assert sorted(header.split(",")) == sorted(names)
    rows = [dict(zip(header.split(","), line.split(","))) for line in lines]
    factors = stored["train_labels"][[int(row["row"]) for row in rows]]
    of_rows = [[int(row[name]) for name in names[1:4]] for row in rows]
    assert of_rows == factors.tolist() and any("." in row["z1_mean"] for row in rows)


def test_draws_have_other_scores_than_means_and_the_same_seed_gives_the_same(runs):
    run = runs / "sweep" / "1"
    means, again, draws = (evaluated(run, *further)["disentanglement"] for further in ([], [], ["codes=draw"]))
    assert means == again and means["mig"] != draws["mig"] and "draw" in draws["variant"]["codes"]
    for name in ("gaussian_total_correlation", "gaussian_total_correlation_of_draws"):
        assert means[name] == draws[name]


def test_the_scores_stay_when_the_run_is_evaluated_without_them(runs):
    run = runs / "sweep" / "1"
    scores = evaluated(run)["disentanglement"]
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=3"]))
    kept = json.loads((run / "evaluation.json").read_text())
    assert kept["num_importance_samples"] == 3 and kept["disentanglement"] == scores
    evaluate.run(compose.compose("evaluate", [f"checkpoint={run}", "num_importance_samples=3", "split=train"]))
    assert json.loads((run / "evaluation.json").read_text()) == kept


def test_other_runs_of_the_same_data_give_udr_and_the_rest_are_named(runs, capsys):
    scores = evaluated(runs / "sweep" / "0", f"beside=[{runs / 'sweep'},{runs / 'digits'},{runs / 'levels'}]")
    udr = scores["disentanglement"]["udr"]
    assert udr["n"] == 2 and 0 < udr["value"] <= 1 and "2 other runs" in scores["disentanglement"]["variant"]["udr"]
    err = capsys.readouterr().err
    assert "digits is left out: it was trained on other data" in err and "levels of latent variables" in err
    assert evaluated(runs / "sweep" / "0", f"beside={runs / 'sweep'}")["disentanglement"]["udr"] == udr


def test_runs_that_cannot_be_compared_are_named_before_the_long_part(runs, monkeypatch):
    def evaluated_too_early(*_):
        raise AssertionError("the log-likelihood comes after the checks")

    monkeypatch.setattr(evaluate, "evaluate", evaluated_too_early)
    with pytest.raises(UserError, match="no model there is of these data"):
        evaluated(runs / "sweep" / "0", f"beside={runs / 'digits'}")


@pytest.mark.slow
def test_a_run_with_a_class_of_ones_own_is_left_out_and_the_others_are_compared(runs, tmp_path, capsys):
    contents = checkpoint.load(checkpoint.find(runs / "sweep" / "1"))
    contents["config"]["encoder"]["_target_"] = "my_package.MyEncoder"
    (tmp_path / "own" / "checkpoints").mkdir(parents=True)
    checkpoint.save_weights(tmp_path / "own" / "checkpoints" / "best.safetensors", contents)
    (tmp_path / "own" / "config.yaml").write_text("epochs: 1\n")
    scores = evaluated(runs / "sweep" / "0", f"beside=[{tmp_path},{runs / 'sweep'}]")["disentanglement"]
    assert scores["udr"]["n"] == 2 and "own is left out: " in capsys.readouterr().err


def test_a_run_of_the_same_images_binarized_is_left_out(runs, tmp_path, capsys):
    random = np.random.default_rng(0)
    images, factors = random.integers(256, size=(600, 4, 4), dtype=np.uint8), random.integers(3, size=(600, 2))
    np.savez(tmp_path / "gray.npz", train=images, train_labels=factors, test=images, test_labels=factors)
    for name in ("none", "threshold"):
        settings = ["dataset=arrays", f"dataset.path={tmp_path / 'gray.npz'}", "epochs=1", "report=false"]
        trained(tmp_path / "runs" / name, *settings, f"dataset.binarize={name}")
    with pytest.raises(UserError, match="no model there is of these data"):
        evaluated(tmp_path / "runs" / "none", f"beside={tmp_path / 'runs'}")
    assert "its data are binary, and these levels256 (dataset.binarize)" in capsys.readouterr().err


def test_factors_that_vary_are_counted_among_the_images_that_are_scored(runs):
    config = compose.compose("evaluate", [f"checkpoint={runs / 'sweep' / '0'}", "disentanglement=true", "limit=100"])
    loaded = built.load(checkpoint.find(config["checkpoint"]), "cpu")
    split, refused = load_data(loaded, config).test, 0
    for image in range(len(split)):  # the one with another value of the second factor
        factors = torch.stack([torch.arange(len(split)) % 3, torch.arange(len(split)) == image], 1).long()
        try:
            scored = disentanglement.prepare(config, loaded, replace(split, factors=factors)).split
        except DataError as error:
            refused += "two factors" in str(error)
        else:
            assert len(scored) == 100 and scored.factors[:, 1].sum() == 1
    assert refused == len(split) - 100 == 50


def test_a_limit_takes_images_of_every_value(runs):
    run = runs / "sweep" / "2"
    evaluate.run(
        compose.compose("evaluate", [f"checkpoint={run}", *QUICK, "limit=101", f"output={runs / 'part.json'}"])
    )
    scores = json.loads((runs / "part.json").read_text())["disentanglement"]
    assert scores["mig"]["n"] == 101 and scores["factors"] == NAMES


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("digits", ["disentanglement=true"], "needs the factors of each image, and digits has none"),
        ("levels", ["disentanglement=true"], "levels"),
        ("sweep/0", ["disentanglement=true", "limit=99"], "100 images at least"),
        ("sweep/0", ["codes=draw"], "add disentanglement=true"),
        ("sweep/0", ["beside=x"], "add disentanglement=true"),
        ("sweep/0", ["disentanglement=true", "beside=RUNS/sweep/0"], "no run in it but this one"),
        ("sweep/0", ["disentanglement=true", "beside=RUNS/digits"], "no model there is of these data"),
        ("sweep/0", ["disentanglement=true", "beside=nowhere"], "nowhere does not exist"),
    ],
)
def test_what_cannot_be_scored_is_refused_in_one_line(name, settings, message, runs):
    settings = [setting.replace("RUNS", str(runs)) for setting in settings]
    with pytest.raises((ConfigError, DataError, UserError), match=message) as caught:
        evaluate.run(compose.compose("evaluate", [f"checkpoint={runs / name}", "num_importance_samples=1", *settings]))
    assert "\n" not in str(caught.value)


def test_a_run_without_a_checkpoint_is_left_out(runs, capsys, tmp_path):
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "config.yaml").write_text("epochs: 1\n")
    scores = evaluated(runs / "sweep" / "0", f"beside=[{tmp_path},{runs / 'sweep'}]")
    assert scores["disentanglement"]["udr"]["n"] == 2 and "broken is left out" in capsys.readouterr().err
    assert disentanglement.DEFAULTS.keys() <= compose.compose("evaluate", []).keys()
