"""Parts from outside the package: what the guide shows works as it stands."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import vae
from tests.support.training import lines
from vae_cli import cli
from vae_cli.runs import checkpoint

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


def test_an_objective_with_a_module_of_its_own_trains_it_and_goes_on(package, monkeypatch):
    """The estimated ratio ends as the gap of two samples: here that of the codes and the prior, which grows apart."""
    monkeypatch.chdir(package)
    monkeypatch.syspath_prepend(package)
    monkeypatch.delitem(sys.modules, "my_package", raising=False)
    own = ["objective._target_=my_package.Adversarial", "+objective.weight=0.5", "latent_dim=2"]
    small = ["report=false", "sample_every=0", "encoder.hidden=[30]", "decoder.hidden=[30]", "hydra.run.dir=run"]
    for words in ([*own, *small, "epochs=2"], ["resume=run", "epochs=3", "allow=my_package"]):
        with pytest.raises(SystemExit) as ended:
            cli.train(words)
        assert ended.value.code == 0
    ratios = [line["ratio"] for line in lines(package / "run", "validation")]
    assert len(ratios) == 3 and ratios[-1] > ratios[0]
    module = checkpoint.load(package / "run" / "checkpoints" / "last.safetensors")["module"]
    assert module["weights"]["2.weight"].shape == (1, 64) and len(module["optimizer"]["state"]) == 4
