"""What the page says about a run."""

from copy import copy
from dataclasses import replace

import pytest

from vae_cli.exploring.page import label_setting, render, run_name


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ([], ["label=0", "label=1", "label=2"]),
        (["cat", "all", "ankle boot"], ["label=cat", "label=1", "label=2"]),
        (["1", "10", "2"], ["label=1", "label=10", "label=2"]),
        (["1", "01", "it's"], ["label=1", "'label='\"'\"'01'\"'\"''", "label=2"]),
    ],
)
def test_a_label_is_named_so_that_the_shell_and_the_command_read_it(names, words):
    assert [label_setting(label, names) for label in range(3)] == words


def test_a_page_has_the_name_of_its_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [
        "runs/mnist",
        "runs/mnist/",
        "runs/mnist/checkpoints/best.safetensors",
        "hf://owner/name",
        "mine.safetensors",
        ".",
    ]
    shown = ["mnist", "mnist", "mnist", "hf://owner/name", "mine.safetensors", tmp_path.name]
    assert [run_name(name) for name in names] == shown


def test_names_of_folders_are_no_markup(conditional):
    odd = copy(conditional)
    odd.facts = replace(
        odd.facts, name="<b>", class_names=("</script><b>", "<!--", "'", '"', "\\", "a", "b", "c", "d", "e")
    )
    page = render(odd, "runs/<b>\"'", "nonce", reason="<b>")
    assert "<b>:" not in page.replace("<b>No test images here:</b>", "") and "</script><" not in page.lower()
    assert page.count("<b>") == 1 and "<!--" not in page and page.count("</script>") == 2
