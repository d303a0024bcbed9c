"""Files of images that the commands write."""

import pytest

from tests.support.image_commands import encoded, reconstructed
from vae_cli import cli
from vae_cli.commands import image_files
from vae_cli.errors import ConfigError, UserError


@pytest.mark.parametrize(
    ("words", "outputs"),
    [
        ("sample n=2 output=x.png", ["x.png"]),
        ("sample mode=interpolate n=1 steps=2 format=png output=x", ["x"]),
        ("sample n=2", ["samples.png"]),
        ("reconstruct limit=2 format=npz", ["reconstructions.npz"]),
        ("encode limit=2 output=x.npz", ["x.npz"]),
        ("evaluate limit=2 num_importance_samples=1 output=x.json", ["x.json"]),
        ("compare", ["comparison.csv", "comparison.html"]),
    ],
)
def test_a_file_that_was_there_is_not_replaced_without_a_word(words, outputs, run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command, *settings = words.split()
    place = str(run) if command == "compare" else f"checkpoint={run}"
    for expected in ("written to", "replaced"):
        with pytest.raises(SystemExit) as ended:
            getattr(cli, command)([place, *settings])
        assert ended.value.code == 0
        printed = capsys.readouterr().out
        assert all(f"{expected} {output}" in printed for output in outputs), printed


def test_an_output_that_cannot_be_written_is_named(run, tmp_path):
    (tmp_path / "file").write_text("in the way")
    for make in (
        lambda: encoded(run, tmp_path / "file"),
        lambda: reconstructed(run, tmp_path / "file" / "x.png", "limit=2"),
    ):
        with pytest.raises(UserError, match="cannot be written"):
            make()
    with pytest.raises(ConfigError, match="end it in .npz"):
        image_files.output_path("x.png", "npz", "codes")
