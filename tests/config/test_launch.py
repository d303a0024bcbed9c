"""From a command line through Hydra to the job."""

import shlex
import time

import pytest
from hydra.core.global_hydra import GlobalHydra

from vae_cli.config import command_line, compose, launch
from vae_cli.errors import ConfigError
from vae_cli.sweeps import launch as sweep_launch


def note(config, directory, overridden, command):
    NOTES.append((config, directory, overridden, command))
    return 0


NOTES: list = []


@pytest.fixture
def notes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    NOTES.clear()
    return NOTES


def run(argv, job):
    line = command_line.read_command_line(argv)
    return sweep_launch.launch(line, job) if line.multirun else launch.launch(line, job)


def launched(*argv):
    return run(argv, note)


def test_paths_survive_a_sweep_in_which_commas_separate(notes):
    texts = ["a b=[c]", "back\\slash\\", "$HOME/${~é"]
    assert launched("-m", f"data_dir={','.join(texts)}") == 0
    assert [config["data_dir"] for config, *_ in notes] == texts


def test_a_quoted_comma_does_not_sweep(notes):
    assert launched("-m", "data_dir='a,b',c", 'allow="d,e"') == 0
    assert [(s["data_dir"], s["allow"]) for s, *_ in notes] == [("a,b", "d,e"), ("c", "d,e")]


def test_choice_sweeps_over_paths(notes):
    assert launched("-m", "data_dir=choice(a,b)") == 0
    assert [config["data_dir"] for config, *_ in notes] == ["a", "b"]


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


def test_a_sweep_runs_every_combination_in_its_own_directory(notes, tmp_path):
    assert launched("latent_dim=2,3", "optimizer=adam,sgd", "-m", "sweep=my sweep") == 0
    assert [(s["latent_dim"], s["optimizer"]["lr"]) for s, *_ in notes] == [
        (2, 1e-3),
        (2, 1e-4),
        (3, 1e-3),
        (3, 1e-4),
    ]
    names = [f"latent_dim-{size}__optimizer-{name}" for size in (2, 3) for name in ("adam", "sgd")]
    assert [d for _, d, *_ in notes] == [tmp_path / "my sweep" / name for name in names]
    assert not list(tmp_path.rglob(".hydra"))


def test_a_key_inside_a_swept_group_follows_the_options(notes):
    assert launched("-m", "encoder=conv,resnet", "encoder.channels=[8,16]") == 0
    assert [s["encoder"]["channels"] for s, *_ in notes] == [[8, 16], [8, 16]]


def test_hydras_values_resolve_in_the_jobs_of_a_sweep(notes):
    assert launched("-m", "latent_dim=2,3", "seed=${hydra:job.num}", "data_dir=${hydra:runtime.output_dir}") == 0
    assert [s["seed"] for s, *_ in notes] == [0, 1]
    assert [s["data_dir"] for s, *_ in notes] == [str(d) for _, d, *_ in notes]


def test_environment_settings_reach_the_job(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = command_line.read_command_line(["+hydra.job.env_set.SEEN=yes", "hydra.run.dir=x"])
    assert launch.launch(line, reads_environment) == 5


def reads_environment(config, directory, overridden, command):
    import os

    return 5 if os.environ.get("SEEN") == "yes" else 1


def status_is_latent_dim(config, directory, overridden, command):
    NOTES.append(config["latent_dim"])
    return config["latent_dim"]


def test_a_sweep_in_which_a_job_fails_ends_with_status_1(notes):
    assert run(["-m", "latent_dim=3,2"], status_is_latent_dim) == 1
    assert notes == [3, 2]


def test_an_interrupted_job_ends_the_sweep(notes):
    assert run(["-m", "latent_dim=130,2"], status_is_latent_dim) == 130
    assert notes == [130]
    assert not GlobalHydra.instance().is_initialized()


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
