"""Parts from outside the package: what the guide shows works as it stands."""

import json
import re
from pathlib import Path

import pytest

from tests.support.commands import vae
from vae_cli import cli

PAGE = (Path(__file__).parents[2] / ".docs" / "extending.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
OWN = {
    "encoder": ["encoder._target_=my_package.MyEncoder", "+encoder.width=30"],
    "prior": ["prior._target_=my_package.LaplacePrior", "+prior.scale=0.5"],
    "likelihood": ["likelihood._target_=my_package.StudentT", "+likelihood.degrees=3"],
    "objective": ["objective._target_=my_package.Renyi", "+objective.order=0.3", "mc_samples=3"],
}


@pytest.fixture
def package(tmp_path):
    """Write all examples of the page to one file, in the directory that the commands run in."""
    (tmp_path / "my_package.py").write_text("\n".join(BLOCKS))
    return tmp_path


def test_each_new_part_is_described_in_under_fifteen_lines():
    for name in ("LaplacePrior", "StudentT", "Renyi"):
        (block,) = [block for block in BLOCKS if f"class {name}(" in block]
        assert sum(bool(line.strip()) for line in block.splitlines()) < 15


def test_one_of_each_from_outside_trains_samples_and_resumes(package, monkeypatch):
    own = [setting for settings in OWN.values() for setting in settings]
    narrow = ["decoder.hidden=[30]", "latent_dim=3", "hydra.run.dir=run"]
    done = vae("train", "epochs=2", "report=false", *own, *narrow, cwd=package)
    assert done.returncode == 0, done.stderr
    summary = json.loads((package / "run" / "summary.json").read_text())
    assert summary["status"] == "completed" and summary["test"]["elbo"] <= summary["test"]["bound"] + 1e-6
    monkeypatch.chdir(package)
    monkeypatch.syspath_prepend(package)
    for command, *words in [(cli.sample, "checkpoint=run"), (cli.train, "resume=run", "epochs=3")]:
        with pytest.raises(SystemExit) as ended:
            command([*words, "allow=my_package"])
        assert ended.value.code == 0
