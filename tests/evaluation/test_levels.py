"""What each level of a hierarchy holds."""

from types import SimpleNamespace

import pytest
import torch

from tests.support.hierarchies import CONDITIONAL, X, shaken, small_hierarchy
from vae_cli.distributions import BernoulliLikelihood, StandardNormalPrior
from vae_cli.evaluation.latent_codes import Points
from vae_cli.evaluation.levels import CHUNK, active_by_level, kl_by_level, moments_below, relative_means
from vae_cli.models import Ladder
from vae_cli.training import outcome


def test_the_moments_below_the_top_are_those_of_the_priors_given_the_levels_above():
    model, x = small_hierarchy(), torch.rand(4, *X).round().double()
    evidence = model.evidence(x, torch.randn(1, 4, model.noise_dim, dtype=torch.float64))
    means, scales = moments_below(model, evidence.z[0])
    priors = [level.prior for level in evidence.levels[:-1]]
    torch.testing.assert_close(means, torch.cat([p.loc[0] for p in priors], dim=1), rtol=0, atol=1e-9)
    torch.testing.assert_close(scales, torch.cat([p.scale[0] for p in priors], dim=1), rtol=0, atol=1e-9)


def test_a_level_that_only_follows_its_prior_is_not_active():
    """Its mean varies over the examples all the same."""
    model, tops = small_hierarchy(), 3 * torch.randn(400, 2, dtype=torch.float64)
    z = model.complete(torch.cat([torch.zeros(400, 5), tops], dim=1), 1).detach()
    assert (z[:, :5].var(0) > 1e-4).any()
    relative = relative_means(model, Points(z, None))
    assert relative[:, :5].abs().max() < 1e-9 and torch.equal(relative[:, 5:], tops)
    assert active_by_level(model, relative) == {"z1": 0, "z2": 0, "z3": 2}


def test_the_prior_that_a_mean_is_held_against_is_that_of_its_own_label():
    model = shaken(CONDITIONAL["ladder"]()).double()
    labels = torch.arange(CHUNK + 5) % 3  # more than go through the model together
    z = model.complete(torch.zeros(len(labels), 5).double(), 0, y=labels).detach()
    assert relative_means(model, Points(z, labels))[:, :3].abs().max() < 1e-9
    assert relative_means(model, Points(z, labels.roll(1)))[:, :3].abs().min(0).values.max() > 1e-3


@pytest.mark.parametrize(
    ("sizes", "numbers", "kl", "dead"),
    [
        ([3], {"kl": 2.0}, {"z1": 2.0}, ()),
        ([3], {"kl": 1e-4}, {"z1": 1e-4}, ("z1",)),
        ([3, 2], {"kl": 2.0, "kl_z1": 2.0, "kl_z2": 1e-4}, {"z1": 2.0, "z2": 1e-4}, ("z2",)),
        ([3, 2], {"kl": 2.0}, {}, ()),
    ],
)
def test_a_level_without_kl_is_dead_also_where_it_is_the_only_one(sizes, numbers, kl, dead):
    model = Ladder(sizes, [4] * len(sizes), X, StandardNormalPrior, BernoulliLikelihood(X))
    assert kl_by_level(model, numbers) == kl
    assert outcome._dead_levels(SimpleNamespace(model=model), numbers) == dead
