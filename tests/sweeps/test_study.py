"""A search by Optuna: what it asks for, what it learns, and that a study goes on where it was left."""

import json
import math
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
from tests.support.sweeping import SMALL, FakeTraining, Killed, sweep
from vae_cli import cli
from vae_cli.build import options
from vae_cli.config import compose, overrides
from vae_cli.errors import ConfigError
from vae_cli.sweeps import search_space, sweepers
from vae_cli.sweeps.job import read_job, read_jobs, save_job
from vae_cli.sweeps.study import make_study

SEARCH = ["hydra/sweeper=optuna", "sweep=s"]
SPACE = ["latent_dim=int(interval(2,10))", "optimizer.lr=tag(log,interval(1e-5,1e-1))"]


def trials(n):
    return f"hydra.sweeper.n_trials={n}"


def study(storage="sqlite:///s/study.db", name="vae_cli"):
    return optuna.load_study(study_name=name, storage=storage)


def points(study):
    return [(trial.number, trial.state.name, trial.params, trial.values) for trial in study.trials]


def search(*argv, train=None):
    return sweep(*SEARCH, *argv, train=train or FakeTraining())


def settings(**changes):
    """Those of hydra.sweeper."""
    defaults = {"n_trials": 20, "n_jobs": 1, "sampler": "tpe", "pruner": "none", "pruner_warmup": None}
    return defaults | {"direction": None, "seed": 0, "storage": None, "study_name": None} | changes


def made(metrics=("validation/elbo",), validation=200, **changes):
    space = search_space.split_overrides(overrides.parse(SPACE))[0]
    return make_study(settings(**changes), metrics, space, {"epochs": 1, "dataset": {"validation": validation}})


@pytest.mark.slow
def test_a_search_ends_near_the_maximum(tmp_path):
    search = made(n_trials=30).open(tmp_path, [])
    while trials := search.ask(1):
        lr, latent_dim = float(trials[0].overrides["optimizer.lr"]), int(trials[0].overrides["latent_dim"])
        elbo = -((latent_dim - 6) ** 2) - math.log10(lr / 1e-3) ** 2
        job = save_job(tmp_path / str(trials[0].number), 0, [], [], trials[0].number)
        summary = {"status": "completed", "validation": {"elbo": elbo}}
        (job.path / "summary.json").write_text(json.dumps(summary))
        search.tell([job])
    [best] = search.best()
    assert best.values[0] > -0.6 and best.overrides["latent_dim"] == "6" and len(read_jobs(tmp_path)) == 30
    assert search.describe(best).startswith(f"trial {best.number}: validation/elbo {best.values[0]:,.4f}; latent_dim=6")


def test_a_grid_is_searched_once_and_whole():
    train = FakeTraining()
    line = ["latent_dim=2,4,6", "optimizer.lr=1e-3,1e-2", "hydra.sweeper.sampler=grid", trials(50)]
    assert search("epochs=1", *line, train=train) == 0
    seen = sorted((settings["latent_dim"], settings["optimizer"]["lr"]) for settings in train.settings)
    assert seen == [(n, lr) for n in (2, 4, 6) for lr in (1e-3, 1e-2)]
    assert study().best_params == {"latent_dim": "6", "optimizer.lr": "0.001"}


@pytest.mark.slow
def test_several_numbers_are_optimized_together_and_all_the_best_are_kept(capsys):
    train = FakeTraining()
    line = ["optimize=[validation/elbo,validation/kl]", "hydra.sweeper.sampler=nsga2", trials(9)]
    assert search("epochs=1", "latent_dim=int(interval(4,8))", *line, train=train) == 0
    front = {trial.params["latent_dim"] for trial in study().best_trials}
    values = {(-((n - 6) ** 2), n) for n in {settings["latent_dim"] for settings in train.settings}}
    assert front == {n for elbo, n in values if not any(e > elbo and k < n for e, k in values)}
    assert max(front) == 6
    written = {path.stem for path in Path("s/experiment").iterdir()}
    assert written == {f"best_{trial.number:04d}" for trial in study().best_trials}
    assert capsys.readouterr().out.count("best: trial") == len(study().best_trials)


@pytest.mark.parametrize("pruner", ["median", pytest.param("hyperband", marks=pytest.mark.slow)])
def test_trials_that_fall_behind_are_pruned_and_listed(pruner, capsys):
    line = [f"hydra.sweeper.pruner={pruner}", trials(9), "hydra.sweeper.pruner_warmup=3"]
    assert search(*SPACE, "epochs=9", *line) == 0
    states = [trial.state.name for trial in study().trials]
    assert {"PRUNED", "COMPLETE"} == set(states)
    for trial in study().trials:
        job = read_job(Path(f"s/trial_{trial.number:04d}"))
        assert job.status == {"PRUNED": "pruned", "COMPLETE": "completed"}[trial.state.name]
        assert len(trial.intermediate_values) == job.run.summary["epochs"] >= 3
        assert (trial.state.name == "PRUNED") == (len(trial.intermediate_values) < 9)
    counts = f"{states.count('COMPLETE')} completed, {states.count('PRUNED')} pruned"
    assert counts in capsys.readouterr().out


def test_a_training_tells_its_pruner_of_every_epoch():
    line = [*SMALL, "epochs=2", "latent_dim=2,3", trials(1), "hydra.sweeper.pruner=median"]
    assert search(*line, train=cli._train_job) == 0
    lines = [json.loads(line) for line in Path("s/trial_0000/metrics.jsonl").read_text().splitlines()]
    elbos = {line["epoch"]: line["elbo"] for line in lines if line["split"] == "validation"}
    assert study().trials[0].intermediate_values == elbos and len(elbos) == 2


class Dying(FakeTraining):
    """Is killed at these of its trainings."""

    def __init__(self, *at):
        super().__init__()
        self.at = at

    def begin(self, settings):
        if len(self.settings) in self.at:
            raise Killed


def test_a_search_goes_on_where_it_was_killed_and_ends_the_same():
    line = [*SPACE, "epochs=4", "hydra.sweeper.pruner=median", "hydra/sweeper=optuna"]
    assert sweep(*line, trials(6), "sweep=whole", train=FakeTraining()) == 0
    train = Dying(1, 4, 7)
    for _ in range(3):
        with pytest.raises(Killed):
            search(*line, trials(6), train=train)
    assert search(*line, trials(6), train=train) == 0
    assert points(study()) == points(study("sqlite:///whole/study.db"))
    assert search(*line, trials(6), train=train) == 0 and len(train.settings) == 9
    assert search(*line, trials(7), train=train) == 0 and len(train.settings) == 10


@pytest.mark.slow
def test_a_trial_whose_search_was_killed_before_it_became_a_job_is_not_lost(monkeypatch):
    def killed(*_, **__):
        raise Killed

    line = [*SPACE, "epochs=1", trials(5), "hydra/sweeper=optuna"]
    assert sweep(*line, "sweep=whole", train=FakeTraining()) == 0
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(sweepers, "save_job", killed)
        search(*line)
    assert search(*line) == 0
    assert points(study()) == points(study("sqlite:///whole/study.db"))


@pytest.mark.slow
def test_a_job_that_ended_before_its_trial_was_told_is_not_trained_again():
    train, line = FakeTraining(), [*SPACE, "epochs=1"]
    assert search(*line, trials(3), train=train) == 0
    asked = study().ask(study().trials[0].distributions)
    path = Path(f"s/trial_{asked.number:04d}")
    path.mkdir()
    (path / "job.json").write_text(json.dumps({"job": 3, "overrides": ["latent_dim=2"], "trial": asked.number}))
    (path / "summary.json").write_text(json.dumps({"status": "completed", "validation": {"elbo": -0.25}}))
    assert search(*line, trials(4), train=train) == 0
    assert len(train.settings) == 3 and study().trials[3].value == -0.25


@pytest.mark.slow
def test_a_trial_that_fails_is_told_as_failed_and_the_search_goes_on(capsys):
    assert search("latent_dim=0,2", "epochs=1", trials(5)) == 1
    states = {trial.params["latent_dim"]: trial.state.name for trial in study().trials}
    assert states == {"0": "FAIL", "2": "COMPLETE"}
    assert "latent_dim accepts an integer of at least 1" in capsys.readouterr().out


@pytest.mark.slow
def test_failed_trials_are_asked_for_again_with_retry_failed():
    class Broken(FakeTraining):
        def begin(self, settings):
            if settings["latent_dim"] % 2:
                raise RuntimeError("no luck")

    line = ["latent_dim=int(interval(2,9))", "epochs=1", trials(5)]
    assert search(*line, train=Broken()) == 1
    failed = [trial.params for trial in study().trials if trial.state.name == "FAIL"]
    assert failed and search(*line) == 1 and len(study().trials) == 5
    search(*line, "retry_failed=true")
    again = study().trials[5:]
    assert all(trial.state.name == "COMPLETE" for trial in again)
    assert {str(trial.params) for trial in again} == {str(params) for params in failed}


def test_the_best_settings_are_a_preset_that_trains_the_same(capsys):
    line = [*SMALL, "epochs=1", "latent_dim=2,3", "+optimizer.amsgrad=true,false", trials(2)]
    assert search("encoder=mlp", "objective=iwae", *line, train=cli._train_job) == 0
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


def test_the_best_of_a_search_within_a_preset_stays_within_it():
    assert search("experiment=mnist_conv", "encoder=resnet", "latent_dim=5,6", trials(2)) == 0
    chosen = compose.compose("train", ["--config-dir", "s", "experiment=best"])
    assert str(chosen["latent_dim"]) == study().best_params["latent_dim"]
    assert chosen["encoder"] == options.option("encoder", "resnet")
    assert chosen["dataset"] == options.option("dataset", "mnist")


@pytest.mark.parametrize(
    ("changes", "answer"),
    [
        ({"sampler": "tep"}, "hydra.sweeper.sampler=tep: it accepts tpe, random, grid or nsga2"),
        ({"sampler": "cmaes"}, "hydra.sweeper.sampler=cmaes: it accepts tpe, random, grid or nsga2"),
        ({"pruner": "x"}, "hydra.sweeper.pruner=x: it accepts none, median or hyperband"),
        ({"n_trials": 0}, "hydra.sweeper.n_trials=0: it accepts an integer of at least 1"),
        ({"n_jobs": 1.5}, "hydra.sweeper.n_jobs=1.5: it accepts an integer of at least 1"),
        ({"pruner_warmup": 0}, "hydra.sweeper.pruner_warmup=0: it accepts null or epochs, an integer of at least 1"),
        ({"storage": "sqlite:///x.db"}, "hydra.sweeper.study_name=NAME"),
        ({"direction": "up"}, "hydra.sweeper.direction=up: it accepts null, maximize or minimize"),
        ({"direction": ["maximize", "minimize"]}, "give one for each of validation/elbo"),
        ({"sampler": "grid"}, "optimizer.lr: a grid needs values"),
        ({"pruner": "median", "metrics": ["seconds"]}, "needs a number of each epoch"),
        ({"pruner": "median", "metrics": ["train/kl", "seconds"]}, "choose none"),
        ({"metrics": ["test/elbo"]}, "the test split is for the end; write optimize=validation/elbo"),
        ({"metrics": ["kl"]}, "write optimize=validation/kl"),
        ({"metrics": ["valid/elbo"]}, "write validation/NAME, train/NAME or one of seconds, parameters"),
        ({"validation": 0}, "dataset.validation=0 holds no images out"),
    ],
)
def test_settings_that_make_no_search_are_answered_in_one_line(changes, answer):
    with pytest.raises(ConfigError) as refused:
        made(**changes)
    assert answer in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["hydra.sweeper.n_trals=3", "latent_dim=2,3"], "n_trals"),
        (["hydra.sweeper.sampler=tep", "latent_dim=2,3"], "hydra.sweeper.sampler=tep: it accepts tpe"),
        (["optimize=test/elbo", "latent_dim=2,3"], "the test split is for the end"),
        (["hydra.sweeper.n_jobs=2", "latent_dim=2,3"], "add a launcher, hydra/launcher=cores"),
        (["latent_dim=2"], "a search needs keys with several values"),
    ],
)
def test_a_command_line_that_makes_no_search_writes_nothing(words, answer):
    with pytest.raises(ConfigError) as refused:
        search(trials(1), *words)
    assert answer in str(refused.value) and "\n" not in str(refused.value) and not Path("s").exists()


def test_a_storage_that_cannot_be_used_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("vae_cli.sweeps.study.time.sleep", lambda _: None)
    with pytest.raises(ConfigError, match="hydra.sweeper.storage=nosuch://me:.*@x cannot be used") as refused:
        made(storage="nosuch://me:hush@x", study_name="a").open(tmp_path, [])
    assert "hush" not in str(refused.value)


def test_a_study_is_not_searched_on_with_other_settings():
    train = FakeTraining()
    assert search(*SPACE, "epochs=1", trials(2), train=train) == 0
    with pytest.raises(ConfigError, match="was begun with epochs=1"):
        search(*SPACE, "epochs=2", trials(4), train=train)
    assert len(train.settings) == 2


def test_settings_without_effect_may_change_and_a_search_for_an_unknown_number_can_be_corrected():
    train = FakeTraining()
    with pytest.raises(ConfigError, match="did you mean validation/elbo?"):
        search(*SPACE, "epochs=1", trials(3), "optimize=validation/elboo", train=train)
    assert len(train.settings) == 1
    assert search(*SPACE, "epochs=1", trials(4), "device=cpu", "fail_fast=true", train=train) == 0
    assert len(train.settings) == 4
    assert [trial.state.name for trial in study().trials] == ["FAIL"] + ["COMPLETE"] * 3


def test_a_trial_that_others_wrote_into_the_study_trains_nothing():
    """Neither a point outside of the space, nor what job.json says that a trial was to train."""
    train, line = FakeTraining(), [*SPACE, "epochs=1"]
    assert search(*line, trials(6), train=train) == 0
    database = sqlite3.connect("s/study.db")
    database.execute("update trials set state = 'RUNNING' where number in (4, 5)")
    database.execute("update trial_params set param_value = 99 where trial_id = 5 and param_name = 'latent_dim'")
    database.commit()
    record = json.loads(Path("s/trial_0005/job.json").read_text())
    Path("s/trial_0005/job.json").write_text(
        json.dumps(record | {"overrides": [*record["overrides"], "latent_dim=99"]})
    )
    for name in ("trial_0004", "trial_0005"):
        Path(f"s/{name}/summary.json").unlink()
    before = study().trials[5].params["latent_dim"]
    search(*line, trials(8), train=train)
    assert all(settings["latent_dim"] <= 10 for settings in train.settings)
    assert [settings["latent_dim"] for settings in train.settings].count(before) >= 2
    assert study().trials[4].state.name == "RUNNING" and study().trials[5].state.name == "COMPLETE"
    shutil.rmtree("s")


def two_searches(storage, count):
    """Two processes on one study, each with a sweep of its own: together so many trials, or one more."""
    command = [sys.executable, "-m", "vae_cli", "train", "-m", "hydra/sweeper=optuna", *SMALL, *SPACE]
    command += [f"hydra.sweeper.storage='{storage}'", "hydra.sweeper.study_name=both"]
    command += [trials(count), "hydra.sweeper.pruner=median"]
    running = [subprocess.Popen([*command, f"sweep={n}"], stdout=subprocess.PIPE, text=True) for n in (0, 1)]
    outputs = [process.communicate(timeout=300)[0] for process in running]
    assert [process.returncode for process in running] == [0, 0], outputs
    asked = study(storage, "both").trials
    assert len(asked) in (count, count + 1) and all(trial.state.is_finished() for trial in asked)
    trained = sorted(int(path.name[-4:]) for n in (0, 1) for path in Path(str(n)).glob("trial_*"))
    assert trained == [trial.number for trial in asked]
    assert all(list(Path(str(n)).glob("trial_*")) for n in (0, 1))
    assert len({str(trial.params) for trial in asked}) == len(asked)


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
