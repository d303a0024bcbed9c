"""The table of generated images, from what evaluation.json holds."""

import pytest

from vae_cli.reporting import generation_table, page


def number(value, stderr=None):
    return {"value": value, "stderr": stderr, "n": 1500}


def generation(**changed):
    return {
        "features": {"name": "classifier of the labels of mnist", "digest": "a", "n_features": 64, "accuracy": 0.9874},
        "n": 1500,
        "seed": 0,
        "drawn": False,
        "images": "gray",
        "biased": True,
        "k": {"precision": 3, "recall": 3, "density": 5},
        "samples": {"prior": {"frechet_distance": number(1234.5), "precision": number(0.25, 0.0125)}},
        "train": {"frechet_distance": number(0.5), "kernel_distance": number(-0.001, 0.002)},
        **changed,
    }


def test_rows_are_what_is_compared_and_columns_the_numbers():
    table = generation_table.from_evaluation({"generation": generation()})
    assert table.columns == ["frechet_distance", "kernel_distance", "precision"]
    assert list(table.rows) == ["samples, prior", "training images"]
    lines = [line.split() for line in generation_table.text(table).splitlines()]
    assert lines[3] == table.columns
    assert lines[4] == ["samples,", "prior", "1,234.50", "0.2500", "±", "0.0125"]
    assert lines[5] == ["training", "images", "0.5000", "-0.001000", "±", "0.002000"]
    assert table.title == (
        "Generation: 1,500 images of p(x|z) against gray images, in 64 features (classifier of the labels of mnist, "
        "98.7 % right)"
    )
    assert table.remarks[0] == "precision and recall with k = 3; density with k = 5"


def test_columns_are_aligned():
    table = generation_table.from_evaluation({"generation": generation()})
    _, _, _, *lines = generation_table.text(table).splitlines()[:6]
    assert len({line.rindex(end) + len(end) for line, end in zip(lines[:2], ("precision", "0.0125"))}) == 1


@pytest.mark.parametrize(
    ("name", "expected"), [("frechet_distance", "the Fréchet distance too"), ("fid", "the FID too")]
)
def test_a_remark_says_that_few_images_bias_the_distance(name, expected):
    few = generation(samples={"prior": {name: number(3.0)}})
    assert expected in generation_table.from_evaluation({"generation": few}).remarks[1]
    assert len(generation_table.from_evaluation({"generation": few | {"biased": False}}).remarks) == 1


def test_draws_are_named_and_an_unknown_accuracy_is_left_out():
    drawn = generation(drawn=True, images="binary", features={"name": "own", "n_features": 2048})
    title = generation_table.from_evaluation({"generation": drawn}).title
    assert title == "Generation: 1,500 draws from p(x|z) against binary images, in 2,048 features (own)"


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"generation": None},
        {"generation": [1]},
        {"generation": {"samples": 3}},
        {"generation": {"samples": {"prior": {"other": 1}}}},
        {"generation": {"samples": {"prior": 2}, "train": "x"}},
    ],
)
def test_other_contents_have_no_table(broken):
    assert generation_table.from_evaluation(broken) is None


def test_broken_contents_are_shown_as_far_as_they_go():
    odd = {"samples": {"\x1b[31m": {"fid": {"value": "x"}}, "prior": {"fid": number(2.0)}}, "k": [3], "n": "many"}
    table = generation_table.from_evaluation({"generation": odd})
    assert [cells[0] for cells in table.rows.values()] == [None, generation_table.Cell(2.0, None)]
    assert "\x1b" not in generation_table.text(table)
    assert page.format_number(table.rows["samples, prior"][0].value) == "2.00"
