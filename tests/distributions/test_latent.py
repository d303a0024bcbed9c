"""The contract of latent distributions: what each provides is what it can do."""

import pytest
import torch

from vae_cli.distributions import DiagonalNormal, FlowPosterior, FullNormalPosterior, LatentDistribution, Mixture

LOC = torch.randn(4, 2)
DISTRIBUTIONS = {
    "diagonal": (DiagonalNormal(LOC, LOC), {"moments", "covariance", "marginals", "frozen", "select"}, True),
    "full": (
        FullNormalPosterior(2)(torch.randn(4, 5)),
        {"moments", "covariance", "marginals", "frozen", "select"},
        False,
    ),
    "flow": (FlowPosterior(2, context=3)(torch.randn(4, 7)), {"frozen", "select"}, False),
    "mixture": (Mixture(DiagonalNormal(LOC, LOC), torch.full((4,), 0.25).log()), set(), False),
}
CALLS = {
    "moments": lambda p: p.moments(),
    "covariance": lambda p: p.covariance(),
    "marginals": lambda p: p.marginals(),
    "frozen": lambda p: p.frozen(),
    "select": lambda p: p.select(torch.tensor([1])),
    "log_prob_by_dimension": lambda p: p.log_prob_by_dimension(torch.zeros(4, 2)),
    "quantiles": lambda p: p.quantiles(torch.tensor([0.5])),
}


@pytest.mark.parametrize("method", CALLS)
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_a_distribution_does_what_it_provides_and_refuses_the_rest_by_name(name, method):
    p, provided, factorized = DISTRIBUTIONS[name]
    expected = provided | ({"log_prob_by_dimension", "quantiles"} if factorized else set())
    assert p.provides(method) == (method in expected) and p.is_factorized == factorized
    if method in expected:
        CALLS[method](p)
    else:
        with pytest.raises(NotImplementedError, match=f"{type(p).__name__} has no {method}"):
            CALLS[method](p)


def test_moments_and_marginals_are_those_of_draws():
    q = DISTRIBUTIONS["full"][0]
    z, _ = q.rsample_and_log_prob(torch.randn(50_000, 4, 2))
    for p in (q, q.marginals()):
        mean, std = p.moments()
        torch.testing.assert_close(mean, z.mean(0), rtol=0, atol=0.05 * float(std.max()))
        torch.testing.assert_close(std, z.std(0), rtol=0.03, atol=0)


@pytest.mark.parametrize("name", ["diagonal", "full"])
def test_the_covariance_is_that_of_draws(name):
    p = DISTRIBUTIONS[name][0]
    z, _ = p.rsample_and_log_prob(torch.randn(100_000, 4, 2))
    for own, drawn in zip(p.covariance(), z.unbind(1)):
        torch.testing.assert_close(own, torch.cov(drawn.T), rtol=0.03, atol=0.02 * float(own.max()))


def test_three_methods_make_a_distribution():
    class Shifted(LatentDistribution):
        def rsample_and_log_prob(self, noise):
            return noise + 1, self.log_prob(noise + 1)

        def log_prob(self, value):
            return -0.5 * (value - 1).square().sum(-1)

        @property
        def mean(self):
            return torch.ones(2)

    p = Shifted(event_shape=torch.Size([2]))
    assert p.rsample_and_log_prob(torch.zeros(3, 2))[0].tolist() == [[1, 1]] * 3
    with pytest.raises(TypeError):
        LatentDistribution()
