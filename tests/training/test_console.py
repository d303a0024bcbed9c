"""Lines and pictures of a training."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from tests.support.training import settings, trained
from vae_cli.build import parts
from vae_cli.reporting import charts
from vae_cli.training import console

IMAGES = SimpleNamespace(noun="image")


def test_keys_of_a_replaced_class_are_dropped_and_named(tmp_path, capsys):
    trained(tmp_path, "optimizer._target_=torch.optim.Adagrad", "epochs=1")
    assert "dropped     optimizer.betas" in capsys.readouterr().out
    assert "betas" not in (tmp_path / "config.yaml").read_text()


def test_a_training_is_announced_in_the_words_that_were_typed(tmp_path, capsys):
    typed = ["encoder=conv", "encoder.channels=[8]", "decoder=linear", "prior=flow", "objective=stl", "mc_samples=2"]
    trained(tmp_path / "one", *typed, "objective.beta=2", "optimizer=adamw", "epochs=1")
    printed = capsys.readouterr().out
    for line in (
        "model       encoder=conv, decoder=linear, prior=flow\n",
        "likelihood  discretized_logistic (probabilities)\n",
        "objective   stl, 2 draws for each image\n",
    ):
        assert line in printed
    words = " ".join(re.split("\n(?:speed|epoch) ", printed.partition("settings    ")[2])[0].split()).split(", ")
    assert {"latent_dim=3", "encoder.channels=[8]", "objective.beta=2", "optimizer=adamw"} <= set(words)
    assert not any(word.startswith(("seed", "batch_size", "encoder.activation", "data_dir")) for word in words)
    assert max(map(len, printed.partition("\ndata ")[2].partition("\npictures ")[0].splitlines())) <= 80


def test_a_class_of_ones_own_is_announced_by_its_path(tmp_path, capsys):
    trained(tmp_path, "optimizer._target_=torch.optim.Adagrad", "epochs=1")
    printed = capsys.readouterr().out
    assert "optimizer=torch.optim.Adagrad" in printed and "optimizer.lr" not in printed


def rows_of(printed):
    return [line for line in printed.splitlines() if re.match(r" *(epoch  |\d+/\d+  )", line)]


def epoch_numbers(**held_out):
    train = {"elbo": -1234.5, "reconstruction": -1200.0, "kl": 34.5, "images_per_second": 123_456.7, "skipped_steps": 0}
    return train, held_out


def test_rows_of_epochs_keep_their_columns_and_fit_a_terminal(tmp_path):
    state = SimpleNamespace(facts=IMAGES, config={"epochs": 1000}, position=SimpleNamespace(epoch=1), rows=0)
    lines = []
    for epoch, scale in ((1, 100.0), (20, 1.0), (999, 0.001)):
        state.position.epoch = epoch
        train, held_out = epoch_numbers(
            elbo=-123.4 * scale, bound=-123.4 * scale, reconstruction=-99 * scale, kl=9 * scale
        )
        lines += console.epoch_line(state, train, held_out, epoch == 20).splitlines()
    titles, *rows = lines
    assert titles.split()[0] == "epoch" and len(rows) == 3
    for name in ("train elbo", "validation elbo", "reconstruction", "kl", "images/s"):
        end = titles.index(name) + len(name)
        assert all(row[end - 1].isdigit() and row[end : end + 1].strip() == "" for row in rows), name
    assert [row.endswith(" (best)") for row in rows] == [False, True, False]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("objective", ["elbo", "iwae"])
def test_rows_name_the_bound_where_it_is_not_the_elbo_and_titles_come_again(objective, tmp_path, capsys):
    trained(tmp_path, f"objective={objective}", "mc_samples=2", "epochs=21")
    titles, first, *others = rows_of(capsys.readouterr().out)
    assert ("validation bound" in titles) == (objective == "iwae") and ("reconstruction" in titles) == (
        objective == "elbo"
    )
    assert first.lstrip().startswith("1/21  ") and others[19] == titles and others[20].lstrip().startswith("21/21  ")


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        (None, "3 steps skipped: not finite"),
        (1e4, "3 steps skipped: not finite, or a gradient above skip_grad_norm=10000"),
    ],
)
def test_a_row_says_why_steps_were_skipped(limit, reason):
    config = {"epochs": 2, "skip_grad_norm": limit}
    state = SimpleNamespace(facts=IMAGES, config=config, position=SimpleNamespace(epoch=1), rows=0)
    assert console.epoch_line(state, epoch_numbers()[0] | {"skipped_steps": 3}, None, False).endswith(reason)


def test_without_validation_the_rows_hold_the_trainings_numbers():
    state = SimpleNamespace(facts=IMAGES, config={"epochs": 2}, position=SimpleNamespace(epoch=1), rows=0)
    titles, row = console.epoch_line(state, epoch_numbers()[0], None, False).splitlines()
    assert titles.split() == ["epoch", "train", "elbo", "reconstruction", "kl", "images/s"]
    assert row.split() == ["1/2", "-1234.50", "-1200.00", "34.50", "123,457"]


def test_pictures_are_grids_of_enlarged_digits_with_originals_above(digits_run):
    samples = Image.open(digits_run / "samples.png")
    assert samples.mode == "L" and samples.size == (8 * 58 + 2, 8 * 58 + 2)
    shown = np.asarray(Image.open(digits_run / "reconstructions.png"))
    first = shown[2 : 2 + 56 : 7, 2 : 2 + 56 : 7]
    x = parts.dataset(settings()).splits().test.images[0, 0]
    np.testing.assert_array_equal(first, x.numpy())


@pytest.mark.parametrize(("prior", "has_border"), [("learned_normal", True), ("mixture_of_normals", False)])
def test_codes_are_drawn_beside_a_prior_of_independent_dimensions(prior, has_border, tmp_path, monkeypatch):
    borders, draw = [], charts.latent_codes
    monkeypatch.setattr(charts, "latent_codes", lambda *given: borders.append(given[2]) or draw(*given))
    trained(tmp_path, f"prior={prior}", "epochs=1", "report=true")
    assert (borders[0] is not None) == has_border


@pytest.mark.parametrize(("components", "is_warned_of"), [(150, True), (20, False)])
def test_a_prior_that_the_data_do_not_bear_is_warned_of_at_the_start_and_in_the_summary(
    components, is_warned_of, tmp_path, capsys
):
    summary = trained(tmp_path, "epochs=1", "prior=vampprior", f"prior.components={components}")
    printed, texts = capsys.readouterr().out, [text for text in summary["warnings"] if "VampPrior" in text]
    assert len(texts) == is_warned_of
    if is_warned_of:
        assert texts[0].startswith("the VampPrior has 150 pseudo-inputs for 1,4")
        assert printed.index("VampPrior has 150") < printed.index(" 1/1 ") < printed.rindex("VampPrior has 150")
