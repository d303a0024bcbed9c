"""Walks through the levels of a hierarchy."""

import pytest
import torch

from tests.support.generation import model_of
from tests.support.hierarchies import CONDITIONAL, shaken, small_hierarchy
from vae_cli.distributions import DiagonalNormalPosterior, StandardNormalPrior
from vae_cli.errors import ConfigError
from vae_cli.generation.level_walks import evenly, interpolate_level, level_number, redraw


def test_captions_say_what_is_kept_and_what_is_drawn():
    model = small_hierarchy().float()
    walk = redraw(model, torch.zeros(1, 7), torch.randn(1, 2, model.prior_noise_dim), ["one draw"])
    assert walk.rows == ["z1-z3 drawn", "z3 kept, z1-z2 drawn", "z2-z3 kept, z1 drawn"]
    assert walk.columns == ["one draw", "anew 1", "anew 2"]


def test_each_vector_has_columns_of_its_own_and_a_column_the_same_noise_in_all_rows():
    model = shaken(CONDITIONAL["ladder"]())
    z, noise = torch.randn(2, 5), torch.randn(2, 3, model.prior_noise_dim)
    walk = redraw(model, z, noise, ["a", "b"], label=2)
    assert walk.z.shape == (2, 8, 5) and torch.equal(walk.y, torch.full((2, 8), 2))
    y = torch.full((1,), 2)
    for kept, row in enumerate(walk.z.unflatten(1, (2, 4))):
        for vector in range(2):
            torch.testing.assert_close(row[vector, 0], z[vector])
            for column in range(3):
                expected = model.complete(z[vector][None], kept, noise[vector, column][None], y)[0]
                torch.testing.assert_close(row[vector, 1 + column], expected)


def test_rows_are_evenly_chosen_where_there_are_more_levels_than_are_shown():
    assert evenly(5, 9) == [0, 1, 2, 3, 4] and evenly(9, 3) == [0, 4, 8] and evenly(1, 12) == [0]


def test_a_walk_in_one_level_keeps_the_levels_above_and_the_others_follow():
    model = small_hierarchy().float()
    first, second = torch.randn(2, 1, 7)
    walk = interpolate_level(model, first, second, 2, steps=3)
    below, moved, above = model.split(walk.z[0])
    torch.testing.assert_close(above, model.split(first)[2].expand(3, -1))
    ends = model.split(first)[1][0], model.split(second)[1][0]
    torch.testing.assert_close(moved, torch.stack([ends[0], (ends[0] + ends[1]) / 2, ends[1]]))
    torch.testing.assert_close(below, model.split(model.complete(walk.z[0], 2))[0])
    assert walk.axis == "z2" and walk.columns == ["0%", "50%", "100%"]


def test_a_level_goes_by_its_name_or_its_number():
    model = small_hierarchy()
    assert [level_number(model, level) for level in ("z1", 2, "z3")] == [1, 2, 3]
    with pytest.raises(ConfigError, match=r"^level=4: this model's levels are z1 \(nearest to the data\) to z3"):
        level_number(model, 4)
    with pytest.raises(ConfigError, match="^level=z1: this model has one level"):
        level_number(model_of(DiagonalNormalPosterior(2), StandardNormalPrior(2)), "z1")
