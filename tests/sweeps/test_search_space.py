"""Hydra's own words say where a search looks."""

import optuna
import pytest

from tests.support.sweeping import FakeTraining, sweep
from vae_cli.sweeps import search_space

SEARCH = ["hydra/sweeper=optuna", "sweep=s"]


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


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
def test_hydras_own_words_say_where_to_search(words, accepts):
    train = FakeTraining()
    assert (
        sweep(*SEARCH, "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=8", "epochs=1", *words, train=train) == 0
    )
    assert len(train.settings) == 8 and all(accepts(settings) for settings in train.settings)
    trials = optuna.load_study(study_name="vae_cli", storage="sqlite:///s/study.db").trials
    keys = [word.partition("=")[0] for word in words]
    assert all(list(trial.params) == keys for trial in trials)
    assert len({str(trial.params) for trial in trials}) > 1


def test_a_logarithmic_range_is_searched_evenly_in_its_logarithm():
    line = ["optimizer.lr=tag(log,interval(1e-6,1))", "hydra.sweeper.sampler=random", "hydra.sweeper.n_trials=24"]
    train = FakeTraining()
    assert sweep(*SEARCH, "epochs=1", *line, train=train) == 0
    small = sum(settings["optimizer"]["lr"] < 1e-3 for settings in train.settings)
    assert 4 <= small <= 20  # of a fair coin's 24 throws, but for one in a thousand


def test_a_grid_has_all_values_of_every_key():
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    space = {"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(2, 8, step=3)}
    space["c"] = FloatDistribution(0.5, 1.5, step=0.5)
    assert search_space.grid(space) == {"a": ["x", "y"], "b": [2, 5, 8], "c": [0.5, 1.0, 1.5]}


@pytest.mark.parametrize("params", [{}, {"a": 9}, {"a": "x"}, {"a": None}, {"a": 3, "b": 1}, {"b": 3}])
def test_what_is_no_point_of_the_space_is_known(params):
    space = {"a": optuna.distributions.IntDistribution(2, 8)}
    assert search_space.contains(space, {"a": 3}) and not search_space.contains(space, params)
