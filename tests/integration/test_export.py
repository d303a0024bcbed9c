"""Exported files are used as the guide's page says, by programs that know nothing of this package."""

import re
from pathlib import Path

import numpy as np
import pytest

from tests.support.commands import status
from vae_cli import cli

PAGE = (Path(__file__).parents[2] / ".docs" / "export.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", [pytest.param("none", marks=pytest.mark.slow), "threshold"])
def test_the_examples_of_the_page_run(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    small = ["epochs=1", "report=false", "encoder.hidden=[8]", "decoder.hidden=[8]"]
    assert status(cli.train, *small, f"dataset.binarize={kind}", "hydra.run.dir=run") == 0
    assert status(cli.export, "checkpoint=run") == 0
    assert status(cli.export, "checkpoint=run", "format=torch", "parts=[decoder]") == 0
    onnx, torch = re.findall(r"^```python\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert "import vae_cli" not in onnx + torch and "from vae_cli" not in onnx + torch
    names = {}
    exec(compile(onnx, "export.md", "exec"), names)  # noqa: S102
    assert names["reconstructions"].shape == (5, 1, 8, 8) and names["samples"].shape == (16, 1, 8, 8)
    assert names["x"].max() == (255 if kind == "none" else 1)
    assert np.ptp(names["samples"]) > 0.1
    exec(compile(torch, "export.md", "exec"), names)  # noqa: S102
    assert names["image"].shape == (4, 1, 8, 8)
