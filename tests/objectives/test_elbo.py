"""The ELBO and the losses from its two terms."""

import numpy as np
import pytest
import torch

from tests.support.linear_gaussian import D, linear_gaussian
from tests.support.objectives import images, noise
from vae_cli.build import parts
from vae_cli.config import compose
from vae_cli.data import DataFacts
from vae_cli.distributions import (
    DiagonalNormalPosterior,
    FullNormalPosterior,
)
from vae_cli.objectives import DIPVAE, ELBO, IWAE, BetaTC, FactorVAE, InfoVAE


def shaped(step=0, **options):
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(2)
    bound = ELBO(mc_samples=2, steps_per_epoch=10, **options)(model, (x, None), drawn, step)
    q = model.encode(x)
    by_dimension = 0.5 * (q.variance + q.mean.square() - 1 - q.variance.log()).mean(0)
    return bound, by_dimension.detach(), float(bound.terms["reconstruction"].mean().detach())


def test_free_bits_let_each_dimension_have_so_many_nats_for_nothing():
    bound, by_dimension, reconstruction = shaped(free_bits=0.1)
    assert 0 < (by_dimension < 0.1).sum() < D, "the test needs dimensions on both sides"
    expected = by_dimension.clamp(min=0.1).sum() - reconstruction
    assert abs(float(bound.loss.detach()) - float(expected)) < 1e-9
    assert float(bound.elbo.detach().mean()) == pytest.approx(reconstruction - float(by_dimension.sum()), rel=1e-9)


def test_free_bits_hold_for_the_total_where_the_posterior_does_not_factorize():
    model, x, drawn = linear_gaussian(FullNormalPosterior), images(), noise(2)
    plain = ELBO(mc_samples=2)(model, (x, None), drawn, 0)
    kl = float(plain.terms["kl"].detach().mean())
    for bits in (kl / D - 0.1, kl / D + 0.1):
        bound = ELBO(mc_samples=2, free_bits=bits)(model, (x, None), drawn, 0)
        expected = max(kl, bits * D) - float(plain.terms["reconstruction"].detach().mean())
        assert float(bound.loss.detach()) == pytest.approx(expected)


def test_monte_carlo_free_bits_have_the_analytic_ones_expectation():
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(20_000)
    a, b = (
        float(ELBO(kl=kl, free_bits=0.1)(model, (x, None), drawn, 0).loss.detach())
        for kl in ("analytic", "monte_carlo")
    )
    assert abs(a - b) < 0.05


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (10, 2.0), (20, 4.0), (99, 4.0)])
def test_capacity_draws_the_kl_to_its_value_which_alone_grows_over_the_warm_up(step, target):
    bound, by_dimension, reconstruction = shaped(step, capacity=4.0, beta=3.0, warmup_epochs=2)
    expected = 3 * abs(float(by_dimension.sum()) - target) - reconstruction
    assert float(bound.loss.detach()) == pytest.approx(expected)


def test_the_annealed_capacity_of_the_settings_is_a_straight_line_from_0_to_its_end():
    """C. P. Burgess et al., 2018, with their γ as β."""
    words = ["objective.capacity=25", "objective.beta=1000", "objective.warmup_epochs=4", "latent_dim=2"]
    config = compose.compose("train", [*words, "encoder.hidden=[4]", "decoder.hidden=[4]"])
    facts = DataFacts("x", (1, 4, 4), "unit", 0, 40)
    config = parts.with_choices(config, facts)
    model = parts.model(config, facts)
    objective = parts.objective(config, model, facts, 5)
    x, drawn = torch.rand(6, 1, 4, 4), torch.randn(1, 6, 2)
    for step, capacity in enumerate(np.linspace(0, 25, 21).tolist() + [25.0] * 3):
        assert objective.scheduled(step) == pytest.approx({"capacity": capacity})
        bound = objective(model, (x, None), drawn, step)
        reconstruction, kl = (float(bound.terms[name].detach().mean()) for name in ("reconstruction", "kl"))
        assert float(bound.loss.detach()) == pytest.approx(-reconstruction + 1000 * abs(kl - capacity), rel=1e-4)


@pytest.mark.parametrize(("step", "weight"), [(0, 0.0), (5, 1.0), (10, 2.0), (15, 2.0), (20, 0.0), (25, 1.0)])
def test_a_cyclical_weight_grows_in_the_first_half_of_every_cycle(step, weight):
    bound, by_dimension, reconstruction = shaped(step, beta=2.0, beta_schedule="cyclical", warmup_epochs=2)
    assert float(bound.loss) == pytest.approx(weight * float(by_dimension.sum()) - reconstruction)


@pytest.mark.parametrize("options", [{"beta": 3.0}, {"beta": 3.0, "beta_schedule": "cyclical"}, {"capacity": 0.3}])
def test_a_model_in_evaluation_is_judged_at_the_schedules_final_values(options):
    model, x, drawn = linear_gaussian(DiagonalNormalPosterior), images(), noise(2)
    objective = ELBO(mc_samples=2, steps_per_epoch=10, warmup_epochs=2, **options)
    in_training, final = (float(objective(model, (x, None), drawn, step).loss.detach()) for step in (3, 35))
    model.eval()
    judged = float(objective(model, (x, None), drawn, 3).loss.detach())
    assert judged == final != in_training


def test_a_schedule_is_settled_when_its_weight_has_arrived_and_a_cycle_in_its_second_half():
    linear = ELBO(beta=8.0, warmup_epochs=2, steps_per_epoch=10)
    assert [linear.is_settled(10 * epoch) for epoch in (1, 2, 3)] == [False, True, True]
    capacity = ELBO(capacity=5.0, beta_schedule="constant", warmup_epochs=2, steps_per_epoch=10)
    assert [capacity.is_settled(10 * epoch) for epoch in (1, 2, 3)] == [False, True, True]
    cycles = ELBO(beta_schedule="cyclical", warmup_epochs=4, steps_per_epoch=10)
    assert [cycles.is_settled(10 * epoch) for epoch in (1, 2, 3, 4, 5, 6)] == [False, True, True, True, False, True]
    assert ELBO().is_settled(0) and IWAE().is_settled(0)


def test_the_best_weights_are_chosen_by_the_loss_where_its_optimum_is_not_the_bounds():
    by_loss = [ELBO(beta=4.0), ELBO(capacity=3.0), BetaTC(), InfoVAE(), FactorVAE(), DIPVAE()]
    by_bound = [ELBO(), ELBO(warmup_epochs=5), ELBO(free_bits=0.1), IWAE(), IWAE("dreg"), BetaTC(1.0, 1.0, 1.0)]
    by_bound += [FactorVAE(gamma=0.0), DIPVAE(off_diagonal=0.0)]
    assert [objective.selects_by for objective in by_loss + by_bound] == ["loss"] * 6 + ["bound"] * 8
