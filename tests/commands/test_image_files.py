"""Files of images that the commands write."""

import pytest

from tests.support.image_commands import encoded, reconstructed
from vae_cli.commands import image_files
from vae_cli.errors import ConfigError, UserError


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
