"""Words of a command line: flags anywhere, paths as the shell gave them."""

import pytest

from tests.support.refusals import refusal
from vae_cli.config import command_line, compose

NASTY = [
    "plain",
    "with space",
    " leading and trailing ",
    "a=b",
    "x,y",
    "[brackets]",
    "{braces}",
    "(parens)",
    "it's",
    'say "hi"',
    'it\'s "both"',
    "'",
    '"',
    "''a''",
    "back\\slash",
    "trailing\\",
    "two\\\\",
    "quote\\'d",
    "\\'",
    "C:\\dir\\'x'\\",
    "été/日本語",
    "~/home",
    "$HOME",
    "a$b$",
    "$",
    "${unclosed",
    "\\${unclosed",
    "a}b{c",
    "#hash",
    "colon: value",
    "true",
    "123",
    "1e-3",
    "nan",
    "a\tb",
    "a\nb",
    "*?|&;<>!@%^",
    "choice(1,2)",
    "glob(*)",
    "-m",
]


PATH_KEYS = ["data_dir", "resume", "dataset.path"]


@pytest.mark.parametrize("texts", list(zip(NASTY[::2], NASTY[1::2])))
def test_a_path_comes_back_as_the_shell_gave_it(texts):
    plain = compose.compose("sample", [f"checkpoint={texts[0]}", f"output={texts[1]}"])
    assert (plain["checkpoint"], plain["output"]) == texts


def test_every_path_key_is_quoted_with_any_prefix():
    for key in (*PATH_KEYS, "checkpoint", "input", "output", "sweep", "hydra.run.dir"):
        for prefix in ("", "+", "++"):
            assert command_line.read_command_line([f"{prefix}{key}=a b"]).overrides == [f"{prefix}{key}='a b'"]


def test_null_and_quoted_values_stay():
    plain = compose.compose("train", ["resume=null", "data_dir='a b'", "dataset=arrays", 'dataset.path="x"'])
    assert (plain["resume"], plain["data_dir"], plain["dataset"]["path"]) == (None, "a b", "x")


@pytest.mark.parametrize("line", ["resume=???", "resume="])
def test_no_path_is_no_path(line):
    assert refusal(line).startswith("resume")


@pytest.mark.parametrize(
    "argv",
    [
        ["latent_dim=2", "-m", "epochs=3"],
        ["-m", "latent_dim=2", "epochs=3"],
        ["latent_dim=2", "epochs=3", "--multirun"],
        ["latent_dim=2", "epochs=3", "hydra.mode=MULTIRUN"],
    ],
)
def test_flags_stand_anywhere(argv):
    line = command_line.read_command_line(argv)
    assert line.multirun
    assert [o for o in line.overrides if "mode" not in o] == ["latent_dim=2", "epochs=3"]


@pytest.mark.parametrize(
    ("argv", "cfg"),
    [
        (["--cfg", "job", "latent_dim=3"], "job"),
        (["latent_dim=3", "--cfg", "job"], "job"),
        (["latent_dim=3", "-c", "hydra"], "hydra"),
    ],
)
def test_flags_with_values_stand_anywhere(argv, cfg):
    line = command_line.read_command_line(argv)
    assert (line.flags.cfg, line.overrides) == (cfg, ["latent_dim=3"])


def test_info_does_not_swallow_an_override():
    line = command_line.read_command_line(["--info", "latent_dim=3"])
    assert (line.flags.info, line.overrides) == ("all", ["latent_dim=3"])


@pytest.mark.parametrize(
    ("argv", "parts"),
    [
        (["--cfg"], ["--cfg"]),
        (["--cfg", "jb"], ["--cfg", "jb", "job"]),
        (["-m", "--cfg", "job"], ["-m and --cfg"]),
        (["--resolve"], ["--resolve", "--cfg"]),
        (["--config-dir", "/no/such"], ["--config-dir /no/such"]),
        (["--config-path", "/no/such"], ["--config-path /no/such"]),
        (["--config-name", "nope"], ["--config-name nope", "nope.yaml"]),
        (["--experimental-rerun", "x"], ["--experimental-rerun"]),
    ],
)
def test_a_wrong_flag_is_answered_in_one_line(argv, parts):
    message = refusal(*argv)
    assert all(part in message for part in parts), message
