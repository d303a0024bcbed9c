"""The help pages: short, complete, and made from conf/ alone."""

import subprocess
import sys

import pytest

from vae_cli.build import options
from vae_cli.config.help import USUAL_KEYS, help_text
from vae_cli.errors import ConfigError


def test_the_first_page_is_read_in_a_minute():
    page = help_text("train")
    assert len(page.splitlines()) <= 70
    assert all(len(line) <= 120 for line in page.splitlines())
    for group, default in options.groups("train").items():
        assert f"  {group}={default} " in page
    assert all(f"  {key}=" in page for key in USUAL_KEYS)


@pytest.mark.parametrize("group", [group for group in options.groups("train") if group != "experiment"])
def test_options_that_serve_one_preset_stand_apart(group):
    words = help_text("train").replace("=", " ").replace(",", " ").split()
    page = help_text("train", ["--help", group])
    for name in options.options(group):
        is_general = name in options.general_options(group)
        assert (f"  {group}={name}" in page.splitlines() or f"  {group}={name} " in page) == is_general
        assert name in words or not is_general
        assert name in page


def test_the_page_of_a_group_has_every_key_with_its_default():
    page = help_text("train", ["--help", "objective"])
    for name in options.general_options("objective"):
        for key in options.keys(f"objective/{name}"):
            assert f"    objective.{key.name}={key.default}" in page and key.comment in page


def test_every_preset_and_every_key_has_a_page_that_lists_it():
    presets = help_text("train", ["--help=experiment"])
    assert all(f"  experiment={name} " in presets for name in options.options("experiment"))
    for command in ("train", "sample"):
        page = help_text(command, ["--help", "keys"])
        assert all(f"  {key.name}=" in page for key in options.keys(command))
    sweep = help_text("train", ["--help", "sweep"])
    assert "hydra/launcher=cores" in sweep and "hydra.sweeper.n_trials=20" in sweep


@pytest.mark.parametrize("words", [["--help"], ["-h", "latent_dim=3"], ["dataset=mnist", "--help"], ["--help", "-m"]])
def test_other_words_than_a_topic_have_the_first_page(words):
    assert help_text("train", words) == help_text("train")


@pytest.mark.parametrize(
    ("command", "topic", "answer"),
    [
        ("train", "encodr", "--help encodr: did you mean encoder?"),
        ("train", "banana", "--help banana: it is one of dataset, model,"),
        ("sample", "sweep", "--help sweep: it is one of keys"),
    ],
)
def test_an_unknown_topic_is_answered_with_the_nearest(command, topic, answer):
    for words in (["--help", topic], [f"--help={topic}"]):
        with pytest.raises(ConfigError) as caught:
            help_text(command, words)
        assert str(caught.value).startswith(answer)


def test_help_imports_neither_hydra_nor_torch():
    code = "import sys; from vae_cli.config.help import help_text; help_text('train', ['--help', 'encoder']); "
    code += "assert not {'torch', 'hydra'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
