"""Schedules of rates and weights."""

import pytest
import torch

from vae_cli.schedules import WEIGHTS, Constant, Cosine, Exponential, MultiStep, ramp


def test_schedules_are_the_functions_they_are_named_after():
    assert [ramp(s, 4) for s in (0, 1, 4, 9)] == [0, 0.25, 1, 1] and ramp(0, 0) == 1
    assert Constant(warmup_epochs=2, steps_per_epoch=5, total_steps=100)(4) == 0.5
    cosine = Cosine(final=0.1, total_steps=100)
    assert cosine(0) == 1 and abs(cosine(50) - 0.55) < 1e-12 and abs(cosine(100) - 0.1) < 1e-12
    assert abs(Exponential(final=0.01, total_steps=100)(50) - 0.1) < 1e-12
    steps = MultiStep(milestones=[0.5, 0.75], gamma=0.1, total_steps=100)
    assert [round(steps(s), 6) for s in (0, 49, 50, 74, 75)] == [1, 1, 0.1, 0.1, 0.01]
    warm = Cosine(warmup_epochs=1, steps_per_epoch=10, total_steps=110)
    assert warm(10) == 1 and abs(warm(60) - 0.5) < 1e-12


@pytest.mark.parametrize("name", WEIGHTS)
def test_schedules_of_a_weight_are_the_same_of_a_tensor(name):
    for step in range(25):
        assert float(WEIGHTS[name](torch.tensor(float(step)), 7.5)) == pytest.approx(WEIGHTS[name](step, 7.5))


def test_schedules_of_a_weight_without_a_length_are_constant():
    assert [WEIGHTS[name](7, 0) for name in WEIGHTS] == [1.0] * 3
