"""The console scripts: what they print, where, and with which status they end."""

import os
import pickle
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from tests.support.commands import install, status
from vae_cli import __version__, cli, errors
from vae_cli.build import options
from vae_cli.errors import DataError

SEEN: list = []


@pytest.fixture(autouse=True)
def jobs(monkeypatch, tmp_path):
    """Stands in for the modules that train and sample, and works in an empty folder."""
    monkeypatch.chdir(tmp_path)
    SEEN.clear()
    install(monkeypatch, "training.run", lambda *call: SEEN.append(call) or 0)
    install(monkeypatch, "commands.sample", lambda *call: SEEN.append(call))


def fails(capsys, command, *argv):
    """The line on stderr of a command that fails, with nothing else printed and nothing left behind."""
    assert status(command, *argv) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert list(Path().iterdir()) == []
    return err


DATASETS = ", ".join(options.options("dataset"))


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("latent_dm=3", "unknown key latent_dm: did you mean latent_dim?"),
        ("+unknown=1", "unknown key unknown: --help keys lists them"),
        ("dataset=minst", f"dataset=minst: did you mean mnist? dataset is one of {DATASETS}"),
        ("--latent_dim=3", "unknown flag --latent_dim=3: settings have no dashes, write latent_dim=3"),
        ("hydra.run.dir=", "hydra.run.dir= is empty; name a folder, or leave it out"),
        (
            "-m latent_dim=2,3 hydra.run.dir=x",
            "hydra.run.dir is the folder of one run; name that of a sweep with sweep=DIR",
        ),
        (
            "encoder._target_=my.Encoder encoder.width=3",
            "unknown key encoder.width: one that only your own class has is written +encoder.width=3",
        ),
        ("latent_dim=0", "latent_dim=0: latent_dim accepts an integer of at least 1"),
        ("latent_dim=2.5", "latent_dim=2.5: latent_dim accepts an integer of at least 1"),
        ("latent_dim=", "latent_dim='': latent_dim accepts an integer of at least 1"),
        ("mc_samples=0", "mc_samples=0: mc_samples accepts an integer of at least 1"),
        ("epochs=-1", "epochs=-1: epochs accepts auto or an integer of at least 0"),
        ("optimizer.lr=nan", "optimizer.lr=nan: optimizer.lr accepts a number of at least 0"),
        ("device=banana", "device=banana: device accepts auto, cpu, cuda, cuda:N or mps"),
        ("device=cudo", "device=cudo: device accepts auto, cpu, cuda, cuda:N or mps; did you mean cuda?"),
        ("latent_dim=2,8", "latent_dim=2,8: several values make a sweep, add -m; a list is written latent_dim=[...]"),
        ("--hlep", "unknown flag --hlep: did you mean --help?"),
        ("--cfg job --package encodr", "--package encodr: unknown key encodr: did you mean encoder?"),
    ],
)  # fmt: skip
def test_a_wrong_line_gets_one_line(line, answer, capsys):
    assert fails(capsys, cli.train, *line.split()) == f"vae-train: error: {answer}\n"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("", "checkpoint=RUN_DIR_OR_FILE is missing"),
        ("n=3", "checkpoint=RUN_DIR_OR_FILE is missing"),
        ("checkpoint=x n=0", "n=0: n accepts null or an integer of at least 1"),
        ("checkpoint=x format=gif", "format=gif: format accepts auto, grid, png, npz, csv or parquet"),
        ("chekpoint=x", "unknown key chekpoint: did you mean checkpoint?"),
        (
            "dataset=mnist",
            "dataset=mnist: vae-sample takes the dataset of the checkpoint; dataset.path= names other data",
        ),
        ("-m checkpoint=a,b", "-m: vae-sample runs once; only vae-train sweeps"),
    ],
)
def test_sample_answers_a_wrong_line_with_one(line, answer, capsys):
    assert fails(capsys, cli.sample, *line.split()) == f"vae-sample: error: {answer}\n"


def test_a_newline_in_a_value_keeps_the_answer_on_one_line(capsys):
    assert "device" in fails(capsys, cli.train, "device='a\nb'")


def test_a_run_prints_nothing_of_hydras_own(capsys, tmp_path):
    assert status(cli.train, "hydra.run.dir=out dir", "latent_dim=3") == 0
    assert capsys.readouterr() == ("", "")
    [(settings, directory, overridden, command)] = SEEN
    assert (settings["latent_dim"], directory, overridden) == (3, tmp_path / "out dir", {"latent_dim", "hydra.run.dir"})
    assert command == "vae-train 'hydra.run.dir=out dir' latent_dim=3"
    assert [p.name for p in tmp_path.rglob("*")] == ["out dir"]


def test_runs_go_to_a_folder_named_after_the_data(tmp_path):
    assert status(cli.train, "dataset=mnist") == 0
    assert SEEN[0][1].parent == tmp_path / "outputs/mnist"


def test_the_exit_status_is_the_jobs(monkeypatch):
    install(monkeypatch, "training.run", lambda *_: 143)
    assert status(cli.train, "hydra.run.dir=x") == 143


def test_a_wrong_job_of_a_sweep_leaves_the_others_alone(capsys):
    assert status(cli.train, "-m", "latent_dim=2,0,3", "sweep=s") == 1
    assert [settings["latent_dim"] for settings, *_ in SEEN] == [2, 3]
    out, err = capsys.readouterr()
    lines = out.splitlines()
    begun = [line for line in lines if line.endswith(" begins")]
    assert begun == [f"{place} of 3  latent_dim-{size} begins" for place, size in enumerate((2, 0, 3), 1)]
    table = [line.split()[:2] for line in lines]
    row = table.index(["0", "completed"])
    assert table[row : row + 3] == [["0", "completed"], ["1", "failed"], ["└", "latent_dim=0:"]]
    wrong = "latent_dim=0: latent_dim accepts an integer of at least 1"
    assert err == f"vae-train: error: job 1 (latent_dim=0): {wrong}\n"
    assert status(cli.train, "-m", "latent_dim=2,0,3", "sweep=s") == 1
    again = "the same command with retry_failed=true runs them again"
    assert capsys.readouterr().err == f"vae-train: error: 1 of 3 jobs failed before; {again}\n"


def test_a_failing_job_of_a_sweep_leaves_the_others_alone(capsys, monkeypatch):
    def run(settings, *_):
        SEEN.append(settings["latent_dim"])
        raise RuntimeError("no luck") if settings["latent_dim"] == 2 else DataError("no data")

    install(monkeypatch, "training.run", run)
    assert status(cli.train, "-m", "latent_dim=2,3", "sweep=s") == 1
    assert SEEN == [2, 3]
    assert capsys.readouterr().err.splitlines() == [
        "vae-train: error: unexpected RuntimeError: no luck (VAE_TRACEBACK=1 shows where)",
        "vae-train: error: job 1 (latent_dim=3): no data",
    ]


@pytest.mark.parametrize("line", [["hydra.run.dir=x"], ["-m", "latent_dim=2,3", "sweep=s"]])
def test_an_interruption_ends_everything(line, capsys, monkeypatch):
    def run(*call):
        SEEN.append(call)
        raise KeyboardInterrupt

    install(monkeypatch, "training.run", run)
    assert status(cli.train, *line) == 130
    assert len(SEEN) == 1
    assert capsys.readouterr().err == "vae-train: interrupted\n"


def test_a_run_directory_that_is_a_file_is_named(capsys, tmp_path):
    (tmp_path / "x").write_text("")
    assert status(cli.train, "hydra.run.dir=x") == 1
    assert (
        capsys.readouterr().err
        == "vae-train: error: hydra.run.dir=x cannot be made (File exists); name another folder\n"
    )


def test_resuming_gets_the_directory_and_makes_none(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    calls = []
    install(monkeypatch, "training.run", lambda *call: calls.append(call[1:]) or 0)
    assert status(cli.train, "resume=some dir", "epochs=7") == 0
    assert calls == [(Path("some dir"), frozenset({"resume", "epochs"}), "vae-train 'resume=some dir' epochs=7")]
    assert status(cli.train, "resume=some dir", "-m", "epochs=7,8") == 1
    assert "leave out -m" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_sample_hands_over_its_settings_and_leaves_no_directory(tmp_path, capsys):
    assert status(cli.sample, "checkpoint=a b=c", "n=100000", "format=npz", "hydra.run.dir=x") == 0
    [(settings,)] = SEEN
    assert (settings["checkpoint"], settings["n"], settings["format"]) == ("a b=c", 100000, "npz")
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("line", ["--cfg job latent_dim=3", "latent_dim=3 --cfg job"])
def test_cfg_shows_the_settings_and_runs_nothing(line, capsys, tmp_path):
    assert status(cli.train, *line.split()) == 0
    out, err = capsys.readouterr()
    assert out.startswith("latent_dim: 3\n")
    assert err == ""
    assert list(tmp_path.iterdir()) == []
    assert SEEN == []


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ("--cfg job --package optimizer", "lr: 0.001"),
        ("--cfg job --resolve", "data_dir: "),
        ("--cfg hydra", "hydra:"),
        ("--info defaults latent_dim=3", "encoder/mlp"),
        ("--info", "latent_dim"),
        ("--hydra-help latent_dim=3", "Hydra"),
        ("--shell-completion install=bash", "complete"),
    ],
)
def test_hydras_own_flags_answer(line, part, capsys, tmp_path):
    assert status(cli.train, *line.split()) == 0
    assert part in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []
    assert SEEN == []


def completions(line):
    name = line.split()[0]
    code = (
        "import sys, atexit; from vae_cli import __main__ as m;"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); m.main()"
    )
    words = [sys.executable, "-c", code, name.removeprefix("vae-"), "-sc", "query=bash"]
    environment = os.environ | {"COMP_LINE": line, "COMP_POINT": str(len(line))}
    ended = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert ended.stderr.splitlines() == ["False"]
    return ended.stdout.split()


@pytest.mark.parametrize(
    ("line", "wanted", "unwanted"),
    [
        ("vae-train latent_dim=3 encoder=", "encoder=conv", "decoder=conv"),
        ("vae-train encoder=conv encoder.", "encoder.channels.", "encoder.hidden."),
        ("vae-train early", "early_stopping=", "epochs="),
        ("vae-sample ", "mode=", "encoder="),
        ("vae-evaluate d", "dataset.", "decoder="),
        ("vae-compare ", "metric=", "dataset="),
    ],
)
def test_a_command_line_is_completed_without_torch(line, wanted, unwanted):
    words = completions(line)
    assert wanted in words and unwanted not in words


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_commands_groups_keys_and_flags(flag, capsys):
    assert status(cli.train, "latent_dim=3", flag) == 0
    out = capsys.readouterr().out
    parts = ["vae-train dataset=mnist latent_dim=16", "dataset=digits", "fashion_mnist", "experiment=null"]
    parts += ["latent_dim=16", "Monte Carlo draws of z", "optimizer.lr=1e-3", "--config-dir"]
    for part in parts:
        assert part in out


@pytest.mark.parametrize("words", [["--help", "encoder"], ["--help=encoder"], ["latent_dim=3", "-h", "encoder"]])
def test_help_of_a_group_lists_its_options_and_their_keys(words, capsys):
    assert status(cli.train, *words) == 0
    out = capsys.readouterr().out
    assert "encoder=conv" in out and "encoder.channels=[32, 64]" in out and "dataset" not in out


def test_help_of_sample_lists_its_own_keys(capsys):
    assert status(cli.sample, "--help") == 0
    out = capsys.readouterr().out
    assert "checkpoint=null" in out
    assert "temperature=1.0" in out
    assert "latent_dim" not in out
    assert "--multirun" not in out


@pytest.mark.parametrize("command", [cli.train, cli.sample])
def test_version_is_the_packages(command, capsys):
    assert status(command, "--version") == 0
    assert capsys.readouterr().out == f"vae_cli {__version__}\n"


def test_arguments_come_from_the_shell_by_default(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["vae-train", "--version"])
    with pytest.raises(SystemExit):
        cli.train()
    assert capsys.readouterr().out.startswith("vae_cli ")


def test_jobs_can_be_sent_to_other_processes():
    job = pickle.loads(pickle.dumps(partial(cli._train_job, given=frozenset(), command="")))
    assert job.func is cli._train_job
    pickle.dumps(partial(errors.exit_status, "vae-train"))


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("train --help", 0),
        ("train --version", 0),
        ("train latent_dm=3", 1),
        ("train --cfg job", 0),
        ("sample --help", 0),
        ("sample", 1),
    ],
)
def test_answers_that_run_nothing_never_import_torch(line, expected):
    code = (
        "import sys, atexit; from vae_cli import __main__ as m;"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr)); m.main()"
    )
    began = time.monotonic()
    ended = subprocess.run([sys.executable, "-c", code, *line.split()], capture_output=True, text=True)
    assert time.monotonic() - began < 5
    assert ended.returncode == expected
    assert ended.stderr.splitlines()[-1] == "False"


def test_the_module_runs_the_commands():
    run = partial(subprocess.run, capture_output=True, text=True)
    assert run([sys.executable, "-m", "vae_cli", "train", "--version"]).stdout == f"vae_cli {__version__}\n"
    wrong = run([sys.executable, "-m", "vae_cli", "trian"])
    assert (wrong.returncode, len(wrong.stderr.splitlines())) == (1, 1)
