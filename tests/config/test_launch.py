"""From a command line through Hydra to the job."""

import shlex
import time

import pytest

from tests.support.launching import launched, note
from vae_cli.config import command_line, compose, launch
from vae_cli.errors import ConfigError


@pytest.mark.parametrize("text", ["a=b, [c]{d}(e)", 'it\'s "both"', "back\\slash\\", "~$HOME été"])
def test_the_run_directory_is_the_one_named(text, notes, tmp_path):
    assert launched(f"hydra.run.dir=d/{text}") == 0
    assert notes[0][1] == tmp_path / f"d/{text}"
    assert notes[0][1].is_dir()


def test_interpolations_work_in_the_run_directory(notes, tmp_path, monkeypatch):
    monkeypatch.setenv("WHERE", "here")
    year = time.strftime("%Y")
    launched("hydra.run.dir=a b/${oc.env:WHERE}/${now:%Y}/${hydra:runtime.choices.dataset}")
    assert notes[0][1] == tmp_path / "a b/here" / year / "digits"


def test_a_job_gets_its_config_directory_and_the_overridden_keys(notes, tmp_path):
    status = launched("hydra.run.dir=out", "encoder=mlp", "+encoder.width=3", "latent_dim=4", "~optimizer.eps")
    assert status == 0
    [(config, directory, overridden, _)] = notes
    assert config["latent_dim"] == 4
    assert type(config["encoder"]) is dict
    assert directory == tmp_path / "out"
    assert overridden == {"encoder", "encoder.width", "latent_dim", "hydra.run.dir"}
    assert list(tmp_path.rglob("*")) == [tmp_path / "out"]


def test_environment_settings_reach_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = command_line.read_command_line(["+hydra.job.env_set.SEEN=yes", "hydra.run.dir=x"])
    assert launch.launch(line, reads_environment) == 5


def reads_environment(config, directory, overridden, command):
    import os

    return 5 if os.environ.get("SEEN") == "yes" else 1


@pytest.mark.parametrize("path", ["plain", "with space", "a=b, [c]{d}(e)", 'it\'s "both"', "back\\slash\\", "~$HOME"])
def test_the_command_of_a_run_gives_a_shell_the_same_settings_again(path, notes):
    launched("latent_dim=3", "encoder=conv", "encoder.channels=[4,8]", f"data_dir={path}")
    [(config, _, overridden, command)] = notes
    program, *words = shlex.split(command)
    again = compose.compose("train", words)
    assert program == "vae-train" and again == config and again["data_dir"] == path
    assert overridden == {"latent_dim", "encoder", "encoder.channels", "data_dir"}


def test_a_value_that_its_class_refuses_is_named_before_a_directory_is_made(notes, tmp_path):
    def refuse(config, overridden):
        raise ConfigError(f"optimizer.lr={config['optimizer']['lr']} {sorted(overridden)}")

    line = command_line.read_command_line(["optimizer.lr=-1", "hydra.run.dir=x"])
    with pytest.raises(ConfigError, match=r"optimizer.lr=-1 \['hydra.run.dir', 'optimizer.lr'\]"):
        launch.launch(line, note, refuse)
    assert not notes and not list(tmp_path.iterdir())


def test_what_a_job_raises_passes_through(tmp_path, monkeypatch):
    def fails(*_):
        raise OSError(28, "No space left on device", "x")

    monkeypatch.chdir(tmp_path)
    with pytest.raises(OSError, match="No space left on device"):
        launch.launch(command_line.read_command_line(["hydra.run.dir=x"]), fails)
