"""A search by Optuna: where it looks, what it is told, and that nothing it has learned is lost."""

import json
import math
import pickle
import shutil
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import optuna
import pytest
import yaml

from tests.support import services
from vae_cli import cli
from vae_cli.config import compose, options
from vae_cli.runs import listeners
from vae_cli.sweeps.jobs import State
from vae_cli.training import run as training_run
from vae_cli.training.signals import StopSignals

SEARCH = ["hydra/sweeper=optuna", "sweep=s"]
SMALL = ["epochs=2", "report=false", "device=cpu", "sample_every=0", "encoder.hidden=[8]", "decoder.hidden=[8]"]
TRIALS: list = []


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TRIALS.clear()


@pytest.fixture
def stub(monkeypatch):
    """Stands in for training: −(latent_dim − 6)² − log₁₀(lr / 10⁻³)², reached from below over the epochs."""

    def run(settings, directory, given, command):
        TRIALS.append(settings)
        score = -((settings["latent_dim"] - 6) ** 2) - math.log10(settings["optimizer"]["lr"] / 1e-3) ** 2
        (directory / "checkpoints").mkdir()
        status = "completed"
        for epoch in range(1, settings["epochs"] + 1):
            listeners.tell(epoch, "validation", {"elbo": score - 1 / epoch})
            if StopSignals().received:
                status = "interrupted"
                break
        line = {"epoch": 1, "split": "validation", "elbo": score, "kl": settings["latent_dim"]}
        (directory / "metrics.jsonl").write_text(json.dumps(line))
        numbers = {"validation": {"elbo": score, "kl": settings["latent_dim"]}, "test": {"elbo": score}}
        (directory / "summary.json").write_text(json.dumps({"status": status, "epochs": epoch, **numbers}))
        return 0 if status == "completed" else 143

    monkeypatch.setattr(training_run, "run", run)


def status(*argv):
    with pytest.raises(SystemExit) as caught:
        cli.train(["-m", *argv])
    return caught.value.code


def study(storage="sqlite:///s/study.db", name="vae_cli"):
    return optuna.load_study(study_name=name, storage=storage)


def points(found):
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in found.trials]


@pytest.mark.parametrize(
    ("words", "accepts"),
    [
        (["latent_dim=2,8"], lambda s: s["latent_dim"] in (2, 8)),
        (["latent_dim=choice(3,4)", "encoder=mlp,conv"], lambda s: s["latent_dim"] in (3, 4)),
        (["early_stopping=null,3"], lambda s: s["early_stopping"] in (None, 3)),
        (["encoder.hidden=[8],[8,4]"], lambda s: s["encoder"]["hidden"] in ([8], [8, 4])),
        (["latent_dim=range(3,9,3)"], lambda s: s["latent_dim"] in (3, 6)),
        (["objective.beta=range(0.5,2,0.5)"], lambda s: s["objective"]["beta"] in (0.5, 1.0, 1.5)),
        (["latent_dim=int(interval(2,5))"], lambda s: s["latent_dim"] in (2, 3, 4, 5)),
        (["latent_dim=tag(log,int(interval(2,64)))"], lambda s: 2 <= s["latent_dim"] <= 64),
        (["optimizer.lr=interval(0.1,0.2)"], lambda s: 0.1 <= s["optimizer"]["lr"] <= 0.2),
        (["optimizer.lr=tag(log,interval(1e-5,1e-1))"], lambda s: 1e-5 <= s["optimizer"]["lr"] <= 1e-1),
    ],
)
def test_hydras_own_words_say_where_to_search(words, accepts, stub):
    assert status(*SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=8", "epochs=1", *words) == 0
    assert len(TRIALS) == 8 and all(accepts(settings) for settings in TRIALS)
    keys = [word.partition("=")[0] for word in words]
    assert all(list(trial.params) == keys for trial in study().trials)
    assert len({str(trial.params) for trial in study().trials}) > 1


def test_a_logarithmic_range_is_searched_evenly_in_its_logarithm(stub):
    line = ["optimizer.lr=tag(log,interval(1e-6,1))", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=24"]
    assert status(*SEARCH, "epochs=1", *line) == 0
    small = sum(settings["optimizer"]["lr"] < 1e-3 for settings in TRIALS)
    assert 4 <= small <= 20  # of a fair coin's 24 throws, but for one in a thousand


SPACE = ["latent_dim=int(interval(2,10))", "optimizer.lr=tag(log,interval(1e-5,1e-1))"]


@pytest.mark.parametrize("sampler", ["tpe", pytest.param("cmaes", marks=pytest.mark.slow)])
def test_a_search_ends_near_the_maximum(sampler, stub, capsys):
    assert status(*SEARCH, *SPACE, "epochs=1", "hydra.sweeper.n_trials=30", f"hydra.sweeper.sampler={sampler}") == 0
    assert study().best_value > -0.6 and study().best_params["latent_dim"] == 6
    out = capsys.readouterr().out
    assert f"best: trial {study().best_trial.number}: validation/elbo {study().best_value:,.4f}; latent_dim=6 " in out


def test_a_grid_is_searched_once_and_whole(stub):
    line = ["latent_dim=2,4,6", "optimizer.lr=1e-3,1e-2", "hydra.sweeper.sampler=grid", "hydra.sweeper.n_trials=50"]
    assert status(*SEARCH, "epochs=1", *line) == 0
    seen = sorted((settings["latent_dim"], settings["optimizer"]["lr"]) for settings in TRIALS)
    assert seen == [(n, lr) for n in (2, 4, 6) for lr in (1e-3, 1e-2)]
    assert study().best_params == {"latent_dim": "6", "optimizer.lr": "0.001"}


def test_several_numbers_are_optimized_together_and_all_the_best_are_kept(stub, capsys):
    line = ["optimize=[validation/elbo,validation/kl]", "hydra.sweeper.sampler=nsga2", "hydra.sweeper.n_trials=16"]
    assert status(*SEARCH, "epochs=1", "latent_dim=int(interval(2,10))", *line) == 0
    front = {trial.params["latent_dim"] for trial in study().best_trials}
    values = {(-((n - 6) ** 2), n) for n in {settings["latent_dim"] for settings in TRIALS}}
    assert front == {n for elbo, n in values if not any(e > elbo and k < n for e, k in values)}
    assert max(front) == 6
    written = {path.stem for path in Path("s/experiment").iterdir()}
    assert written == {f"best_{trial.number:04d}" for trial in study().best_trials}
    assert capsys.readouterr().out.count("best: trial") == len(study().best_trials)


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.slow)])
def test_trials_that_fall_behind_are_pruned_and_listed(pruner, stub, capsys):
    line = [f"hydra.sweeper.pruner={pruner}", "hydra.sweeper.n_trials=15", "hydra.sweeper.pruner_warmup=3"]
    assert status(*SEARCH, *SPACE, "epochs=9", *line) == 0
    states = [trial.state.name for trial in study().trials]
    assert {"PRUNED", "COMPLETE"} == set(states)
    for trial in study().trials:
        state = State(Path(f"s/trial_{trial.number:04d}"))
        assert state.status == {"PRUNED": "pruned", "COMPLETE": "completed"}[trial.state.name]
        assert len(trial.intermediate_values) == state.run.summary["epochs"] >= 3
        assert (trial.state.name == "PRUNED") == (len(trial.intermediate_values) < 9)
    counts = f"{states.count('COMPLETE')} completed, {states.count('PRUNED')} pruned"
    assert counts in capsys.readouterr().out


def test_a_search_goes_on_where_it_was_killed_and_ends_the_same(stub, monkeypatch):
    class Killed(BaseException):
        pass

    line = [*SPACE, "epochs=4", "hydra.sweeper.n_trials=10", "hydra.sweeper.pruner=median", "hydra/sweeper=optuna"]
    assert status(*line, "sweep=whole") == 0
    honest, calls = training_run.run, []

    def dying(settings, directory, given, command):
        calls.append(directory)
        if len(calls) in (1, 6, 11):
            raise Killed
        return honest(settings, directory, given, command)

    monkeypatch.setattr(training_run, "run", dying)
    for _ in range(3):
        with pytest.raises(Killed):
            status(*line, "sweep=s")
    assert status(*line, "sweep=s") == 0
    assert points(study()) == points(study("sqlite:///whole/study.db"))
    assert status(*line, "sweep=s") == 0 and len(calls) == 13
    assert status(*line[:3], "hydra.sweeper.n_trials=12", *line[4:], "sweep=s") == 0 and len(calls) == 15


def test_a_trial_whose_search_was_killed_before_it_became_a_job_is_not_lost(stub, monkeypatch):
    class Killed(BaseException):
        pass

    def killed(*_, **__):
        raise Killed

    line = [*SPACE, "epochs=1", "hydra.sweeper.n_trials=5", "hydra/sweeper=optuna"]
    assert status(*line, "sweep=whole") == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("vae_cli.sweeps.jobs.of_trial", killed)
        status(*line, "sweep=s")
    assert status(*line, "sweep=s") == 0
    assert points(study()) == points(study("sqlite:///whole/study.db"))


def test_a_job_that_ended_before_its_trial_was_told_is_not_trained_again(stub):
    line = [*SPACE, "epochs=1", "hydra.sweeper.n_trials=3"]
    assert status(*SEARCH, *line) == 0
    untold = study("sqlite:///s/study.db")
    asked = untold.ask(untold.trials[0].distributions)
    path = Path(f"s/trial_{asked.number:04d}")
    path.mkdir()
    record = {"job": 3, "overrides": ["latent_dim=2"], "trial": asked.number, "start": "gone", "ended_in": "gone"}
    (path / "job.json").write_text(json.dumps(record))
    (path / "summary.json").write_text(json.dumps({"status": "completed", "validation": {"elbo": -0.25}}))
    assert status(*SEARCH, *line[:-1], "hydra.sweeper.n_trials=4") == 0
    assert len(TRIALS) == 3 and study().trials[3].value == -0.25


def test_a_trial_that_fails_is_told_as_failed_and_the_search_goes_on(stub, capsys):
    assert status(*SEARCH, "latent_dim=0,2", "epochs=1", "hydra.sweeper.n_trials=8") == 1
    states = {trial.params["latent_dim"]: trial.state.name for trial in study().trials}
    assert states == {"0": "FAIL", "2": "COMPLETE"}
    assert "latent_dim accepts an integer of at least 1" in capsys.readouterr().out


def test_the_best_settings_are_a_preset_that_trains_the_same(capsys):
    line = [*SMALL, "latent_dim=2,3", "+optimizer.amsgrad=true,false", "hydra.sweeper.n_trials=3"]
    assert status(*SEARCH, "encoder=mlp", "objective=iwae", *line) == 0
    best = Path(f"s/trial_{study().best_trial.number:04d}")
    word = next(text for text in capsys.readouterr().out.splitlines() if "--config-dir" in text)
    assert word.split()[:1] == ["vae-train"]
    with pytest.raises(SystemExit) as caught:
        cli.train([*word.split()[1:], "hydra.run.dir=again"])
    assert caught.value.code == 0
    one, other = (json.loads((path / "summary.json").read_text())["test"] for path in (best, Path("again")))
    assert one == other
    one, other = (yaml.safe_load((path / "config.yaml").read_text()) for path in (best, Path("again")))
    assert one == other


def test_the_best_of_a_search_within_a_preset_stays_within_it(stub):
    assert status(*SEARCH, "experiment=mnist_conv", "encoder=resnet", "latent_dim=5,6", "hydra.sweeper.n_trials=4") == 0
    chosen = compose.compose("train", ["--config-dir", "s", "experiment=best"])
    assert chosen["latent_dim"] == 6 and chosen["encoder"] == options.option("encoder", "resnet")
    assert chosen["dataset"] == options.option("dataset", "mnist")


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["hydra.sweeper.sampler=tep", "latent_dim=2,3"], "hydra.sweeper.sampler=tep: it is one of tpe, random"),
        (["hydra.sweeper.pruner=x", "latent_dim=2,3"], "hydra.sweeper.pruner=x: it is one of none, median, hyperband"),
        (["hydra.sweeper.n_trials=0", "latent_dim=2,3"], "hydra.sweeper.n_trials=0"),
        (["hydra.sweeper.n_jobs=1.5", "latent_dim=2,3"], "hydra.sweeper.n_jobs=1.5"),
        (["hydra.sweeper.n_trals=3", "latent_dim=2,3"], "n_trals"),
        (["latent_dim=2"], "a search needs keys with several values"),
        (["latent_dim=interval(2,9)"], "search latent_dim=int(interval(2,9))"),
        (["hydra.sweeper.sampler=grid", "optimizer.lr=interval(0,1)"], "optimizer.lr: a grid needs values"),
        (["hydra.sweeper.storage=sqlite:///x.db", "latent_dim=2,3"], "hydra.sweeper.study_name=NAME"),
        (
            ["hydra.sweeper.storage=nosuch://x", "hydra.sweeper.study_name=a", "latent_dim=2,3"],
            "hydra.sweeper.storage=nosuch://x cannot be used",
        ),
        (["hydra.sweeper.direction=up", "latent_dim=2,3"], "hydra.sweeper.direction=up: maximize or minimize"),
        (["hydra.sweeper.pruner=median", "optimize=seconds", "latent_dim=2,3"], "needs a number of each epoch"),
        (["optimize=test/elbo", "latent_dim=2,3"], "the test split is for the end; write optimize=validation/elbo"),
        (["optimize=kl", "latent_dim=2,3"], "write optimize=validation/kl"),
        (["optimize=valid/elbo", "latent_dim=2,3"], "write validation/NAME, train/NAME or one of seconds, parameters"),
        (["optimize=validation/elbo", "dataset.validation=0", "latent_dim=2,3"], "holds no images out"),
        (["hydra.sweeper.n_jobs=2", "latent_dim=2,3"], "add a launcher, hydra/launcher=cores"),
        (["hydra.sweeper.sampler=cmaes", "optimize=[train/kl,seconds]", "latent_dim=2,3"], "choose nsga2 or tpe"),
        (["optimizer.lr=tag(log,interval(0,1))"], "optimizer.lr"),
        (["latent_dim=interval(9,2)"], "latent_dim"),
        (["latent_dim=0,-1"], "latent_dim"),
    ],
)
def test_what_cannot_be_searched_is_said_in_one_line(words, answer, stub, capsys):
    assert status(*SEARCH, "hydra.sweeper.n_trials=1", *words) == 1
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("vae-train: error: ")]
    assert len(said) == 1 and answer in said[0]


def test_a_study_is_not_searched_on_with_other_settings(stub, capsys):
    assert status(*SEARCH, *SPACE, "epochs=1", "hydra.sweeper.n_trials=2") == 0
    assert status(*SEARCH, *SPACE, "epochs=2", "hydra.sweeper.n_trials=4") == 1
    assert "was begun with epochs=1" in capsys.readouterr().err and len(TRIALS) == 2


def test_what_does_not_matter_may_change_and_an_unknown_number_ends_a_search_that_can_be_mended(stub, capsys):
    assert status(*SEARCH, *SPACE, "epochs=1", "hydra.sweeper.n_trials=3", "optimize=validation/elboo") == 1
    assert len(TRIALS) == 1 and "did you mean validation/elbo?" in capsys.readouterr().err
    line = [*SEARCH, *SPACE, "epochs=1"]
    assert status(*line, "hydra.sweeper.n_trials=4", "device=cpu", "fail_fast=true") == 0
    assert len(TRIALS) == 4 and [trial.state.name for trial in study().trials] == ["FAIL"] + ["COMPLETE"] * 3


def test_failed_trials_are_asked_for_again_when_that_is_wanted(stub, monkeypatch):
    honest, broken = training_run.run, []

    def failing(settings, directory, *rest):
        if settings["latent_dim"] % 2 and broken:
            raise RuntimeError("no luck")
        return honest(settings, directory, *rest)

    monkeypatch.setattr(training_run, "run", failing)
    line = [*SEARCH, "latent_dim=int(interval(2,9))", "epochs=1", "hydra.sweeper.n_trials=8"]
    broken.append(True)
    assert status(*line) == 1
    failed = [trial.params for trial in study().trials if trial.state.name == "FAIL"]
    assert failed and status(*line) == 1 and len(study().trials) == 8
    broken.clear()
    status(*line, "retry_failed=true")
    again = study().trials[8:]
    assert all(trial.state.name == "COMPLETE" for trial in again)
    assert {str(trial.params) for trial in again} == {str(params) for params in failed}


class Ran:
    def __reduce__(self):
        return Path.touch, (Path("ran"),)


def test_a_strangers_study_runs_nothing(stub):
    """Neither the state that Optuna keeps as a pickle, nor what job.json says that a trial was to train."""
    line = [*SEARCH, *SPACE, "epochs=1", "hydra.sweeper.sampler=cmaes"]
    assert status(*line, "hydra.sweeper.n_trials=6") == 0
    database = sqlite3.connect("s/study.db")
    poison = json.dumps(pickle.dumps(Ran()).hex())
    key = f"{optuna.samplers.CmaEsSampler()._attr_key_optimizer}:0"
    for (trial,) in database.execute("select trial_id from trials").fetchall():
        row = (100 + trial, trial, key, poison)
        database.execute("insert into trial_system_attributes values (?, ?, ?, ?)", row)
    database.execute("update trials set state = 'RUNNING' where number = 5")
    database.commit()
    record = json.loads(Path("s/trial_0005/job.json").read_text())
    record["overrides"] += ["latent_dim=99"]
    Path("s/trial_0005/job.json").write_text(json.dumps(record | {"ended_in": "x"}))
    Path("s/trial_0005/summary.json").unlink()
    shutil.rmtree("s/trial_0005/checkpoints")
    assert status(*line, "hydra.sweeper.n_trials=8") == 1
    assert not Path("ran").exists() and all(settings["latent_dim"] <= 10 for settings in TRIALS)


def test_an_interval_wants_a_search(capsys):
    assert status("optimizer.lr=interval(0,1)", "sweep=s") == 1
    assert "search it with hydra/sweeper=optuna" in capsys.readouterr().err
    assert not Path("s").exists()


def two_searches(storage, trials):
    """Two processes on one study, each with a sweep of its own."""
    command = [sys.executable, "-m", "vae_cli", "train", "-m", "hydra/sweeper=optuna", *SMALL, *SPACE]
    command += [f"hydra.sweeper.storage='{storage}'", "hydra.sweeper.study_name=both"]
    command += [f"hydra.sweeper.n_trials={trials}", "hydra.sweeper.pruner=median"]
    running = [subprocess.Popen([*command, f"sweep={n}"], stdout=subprocess.PIPE, text=True) for n in (0, 1)]
    assert [process.wait(300) for process in running] == [0, 0], [process.stdout.read() for process in running]
    found = study(storage, "both")
    told = [trial for trial in found.trials if "surplus" not in trial.user_attrs]
    assert len(told) == trials and all(trial.state.is_finished() for trial in told)
    trained = sorted(int(path.name[-4:]) for n in (0, 1) for path in Path(str(n)).glob("trial_*"))
    assert trained == [trial.number for trial in told]
    assert all(list(Path(str(n)).glob("trial_*")) for n in (0, 1))
    assert len({str(trial.params) for trial in told}) == trials


@pytest.mark.slow
def test_two_processes_share_a_study_in_a_file(tmp_path):
    two_searches(f"sqlite:///{tmp_path}/both.db", 12)


@pytest.mark.slow
def test_two_processes_share_a_study_in_postgresql():
    with ExitStack() as stack:
        try:
            url = stack.enter_context(services.postgres())
        except services.NotHere as reason:
            pytest.skip(str(reason))
        two_searches(url, 16)
