"""Hydra's own words say where a search looks."""

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from vae_cli.config import overrides
from vae_cli.errors import ConfigError
from vae_cli.sweeps import search_space

optuna.logging.set_verbosity(optuna.logging.ERROR)


def space_of(*texts):
    return search_space.split_overrides(overrides.parse(list(texts)))[0]


def samples(*texts, count=12):
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    return [study.ask(space_of(*texts)).params for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "accepts"),
    [
        ("latent_dim=2,8", lambda value: value in ("2", "8")),
        ("latent_dim=choice(3,4)", lambda value: value in ("3", "4")),
        ("encoder=mlp,conv", lambda value: value in ("mlp", "conv")),
        ("early_stopping=null,3", lambda value: value in ("null", "3")),
        ("encoder.hidden=[8],[8,4]", lambda value: value in ("[8]", "[8,4]")),
        ("latent_dim=range(3,9,3)", lambda value: value in (3, 6)),
        ("objective.beta=range(0.5,2,0.5)", lambda value: value in (0.5, 1.0, 1.5)),
        ("latent_dim=int(interval(2,5))", lambda value: value in (2, 3, 4, 5)),
        ("latent_dim=tag(log,int(interval(2,64)))", lambda value: isinstance(value, int) and 2 <= value <= 64),
        ("optimizer.lr=interval(0.1,0.2)", lambda value: 0.1 <= value <= 0.2),
        ("optimizer.lr=tag(log,interval(1e-5,1e-1))", lambda value: 1e-5 <= value <= 1e-1),
    ],
)
def test_hydras_own_words_say_where_to_search(text, accepts):
    values = [params[text.partition("=")[0]] for params in samples(text)]
    assert all(map(accepts, values)) and len(set(values)) > 1


def test_a_logarithmic_range_is_searched_evenly_in_its_logarithm():
    values = samples("optimizer.lr=tag(log,interval(1e-6,1))", count=24)
    small = sum(params["optimizer.lr"] < 1e-3 for params in values)
    assert 4 <= small <= 20  # of a fair coin's 24 throws, but for one in a thousand


def test_overrides_of_one_value_are_shared_by_all_trials():
    parsed = overrides.parse(["epochs=3", "latent_dim=choice(4)", "optimizer.lr=1e-3,1e-2", "~logger"])
    space, fixed = search_space.split_overrides(parsed)
    assert list(space) == ["optimizer.lr"] and fixed == ["epochs=3", "latent_dim=4", "~logger"]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("latent_dim=2", "a search needs keys with several values"),
        ("latent_dim=interval(2,9)", "search latent_dim=int(interval(2,9))"),
        ("optimizer.lr=tag(log,interval(0,1))", "optimizer.lr"),
        ("latent_dim=int(interval(9,2))", "latent_dim"),
    ],
)
def test_a_key_that_cannot_be_searched_is_named_in_one_line(text, answer):
    with pytest.raises(ConfigError) as refused:
        space_of(text)
    assert answer in str(refused.value) and "\n" not in str(refused.value)


def test_a_grid_has_all_values_of_every_key():
    space = {"a": CategoricalDistribution(["x", "y"]), "b": IntDistribution(2, 8, step=3)}
    space["c"] = FloatDistribution(0.5, 1.5, step=0.5)
    assert search_space.grid(space) == {"a": ["x", "y"], "b": [2, 5, 8], "c": [0.5, 1.0, 1.5]}
    with pytest.raises(ConfigError, match="optimizer.lr: a grid needs values that can be counted"):
        search_space.grid(space_of("optimizer.lr=interval(0,1)"))


@pytest.mark.parametrize("params", [{}, {"a": 9}, {"a": "x"}, {"a": None}, {"a": 3, "b": 1}, {"b": 3}])
def test_a_point_outside_of_the_space_is_known(params):
    space = {"a": IntDistribution(2, 8)}
    assert search_space.contains(space, {"a": 3}) and not search_space.contains(space, params)
