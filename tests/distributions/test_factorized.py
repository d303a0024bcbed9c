"""Plain torch distributions become latent ones."""

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import (
    Bernoulli,
    Beta,
    Cauchy,
    Gumbel,
    HalfNormal,
    Independent,
    Laplace,
    LogNormal,
    MultivariateNormal,
    Normal,
    StudentT,
    Uniform,
    kl_divergence,
)

from tests.support.linear_gaussian import SHAPE
from vae_cli.distributions import (
    DiagonalNormal,
    DiagonalNormalPosterior,
    NormalLikelihood,
    Posterior,
    Prior,
    analytic_kl,
    as_latent,
    kl_by_dimension,
)
from vae_cli.errors import ConfigError
from vae_cli.generation import walks
from vae_cli.models import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder
from vae_cli.objectives import ELBO, IWAE, BetaTC, InfoVAE

F64 = torch.float64
LOC, SCALE = torch.tensor([0.5, -1.0, 3.0], dtype=F64), torch.tensor([0.3, 1.0, 2.0], dtype=F64)
PLAIN = {
    "laplace": (Laplace(LOC, SCALE), scipy.stats.laplace(LOC, SCALE)),
    "uniform": (Uniform(LOC - SCALE, LOC + SCALE), scipy.stats.uniform(LOC - SCALE, 2 * SCALE)),
    "cauchy": (Cauchy(LOC, SCALE), scipy.stats.cauchy(LOC, SCALE)),
    "gumbel": (Gumbel(LOC, SCALE), scipy.stats.gumbel_r(LOC, SCALE)),
    "half normal": (HalfNormal(SCALE), scipy.stats.halfnorm(0, SCALE)),
    "log normal": (LogNormal(LOC, SCALE), scipy.stats.lognorm(SCALE, scale=LOC.exp())),
    "student": (StudentT(3.5, LOC, SCALE), scipy.stats.t(3.5, LOC, SCALE)),
    "independent": (Independent(Laplace(LOC, SCALE), 1), scipy.stats.laplace(LOC, SCALE)),
    "normal": (Normal(LOC, SCALE), scipy.stats.norm(LOC, SCALE)),
}


@pytest.mark.parametrize("name", PLAIN)
def test_base_noise_goes_to_the_quantile_of_its_own_probability(name):
    plain, theirs = PLAIN[name]
    p, noise = as_latent(plain), torch.randn(500, 3, dtype=F64)
    z, log_p = p.rsample_and_log_prob(noise)
    np.testing.assert_allclose(z, theirs.ppf(scipy.stats.norm.cdf(noise)), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(log_p, theirs.logpdf(z).sum(-1), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(p.log_prob_by_dimension(z), theirs.logpdf(z), rtol=1e-9, atol=1e-9)
    places = torch.tensor([0.1, 0.5, 0.9], dtype=F64).unsqueeze(-1)
    np.testing.assert_allclose(p.quantiles(places), theirs.ppf(places), rtol=1e-7, atol=1e-9)
    if p.provides("moments"):
        assert torch.allclose(p.covariance(), torch.diag_embed(p.moments()[1] ** 2))
        for own, expected in zip(p.moments(), (theirs.mean(), theirs.std())):
            np.testing.assert_allclose(own, expected)


def test_a_distribution_without_moments_says_so():
    assert not as_latent(Cauchy(LOC, SCALE)).provides("moments")
    assert not as_latent(Cauchy(LOC, SCALE)).provides("covariance")
    assert not as_latent(StudentT(1.5, LOC, SCALE)).provides("moments")
    assert as_latent(StudentT(2.5, LOC, SCALE)).provides("moments")


@pytest.mark.parametrize("make", [Laplace, Cauchy, Gumbel, lambda loc, scale: StudentT(4.0, loc, scale)])
@pytest.mark.parametrize("size", [0.0, 6.0, 8.0, 30.0])
def test_noise_far_away_gives_finite_values_and_gradients_in_float32(make, size):
    loc, scale = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    z, log_p = as_latent(make(loc, scale)).rsample_and_log_prob(torch.tensor([[size, -size, 0.0]]))
    gradients = torch.autograd.grad(z.sum() + log_p.sum(), (loc, scale))
    assert z.dtype is torch.float32 and z.isfinite().all() and all(g.isfinite().all() for g in gradients)


def test_gradients_of_a_draw_are_finite_differences():
    noise, h = torch.randn(20, 3, dtype=F64), 1e-5

    def draw(df, loc, scale):
        return as_latent(StudentT(df, loc, scale)).rsample_and_log_prob(noise)[0].square().sum()

    parameters = [torch.full((3,), 4.0, dtype=F64), LOC.clone(), SCALE.clone()]
    leaves = [value.clone().requires_grad_() for value in parameters]
    draw(*leaves).backward()
    for number, leaf in enumerate(leaves):
        shifted = [[v + s * h * (n == number) for n, v in enumerate(parameters)] for s in (1, -1)]
        difference = (draw(*shifted[0]) - draw(*shifted[1])) / (2 * h)
        assert float(leaf.grad.sum()) == pytest.approx(float(difference), rel=1e-5)


def test_a_frozen_or_selected_one_is_of_the_same_family():
    loc = torch.randn(5, 3, dtype=F64, requires_grad=True)
    q = as_latent(StudentT(3.0, loc, SCALE))
    z = torch.randn(5, 3, dtype=F64, requires_grad=True)
    assert torch.autograd.grad(q.frozen().log_prob(z).sum(), [z, loc], allow_unused=True)[1] is None
    index = torch.tensor([[4, 0], [1, 1]])
    selected = q.select(index)
    assert selected.batch_shape == (2, 2)
    torch.testing.assert_close(selected.log_prob(z[index]), q.log_prob(z)[index])


def test_closed_forms_are_torchs():
    q, p = Laplace(LOC, SCALE), Laplace(0 * LOC, 2 * SCALE)
    torch.testing.assert_close(kl_by_dimension(as_latent(q), as_latent(p)), kl_divergence(q, p))
    torch.testing.assert_close(analytic_kl(as_latent(q), as_latent(p)), kl_divergence(q, p).sum())
    assert analytic_kl(DiagonalNormal(LOC, SCALE.log()), as_latent(p)) is None
    assert isinstance(as_latent(Normal(LOC, SCALE)), DiagonalNormal)


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (Beta(SCALE, SCALE), "Beta has no icdf"),
        (Bernoulli(logits=LOC), "Bernoulli has no icdf"),
        (MultivariateNormal(LOC, torch.eye(3, dtype=F64)), "event shape \\(3,\\)"),
        (StudentT(torch.full((3,), 3)), "parameters that are integers"),
        (Laplace(0.0, 1.0), "batch shape \\(\\)"),
    ],
)
def test_what_cannot_map_base_noise_is_refused_in_one_line(plain, said):
    with pytest.raises(ConfigError, match=said):
        as_latent(plain)


class LaplacePrior(Prior):
    """A prior of one's own: `__init__` and `forward`."""

    def __init__(self, latent_dim, scale: float = 1.0):
        super().__init__(latent_dim)
        self.register_buffer("scale", torch.full((latent_dim,), scale))

    def forward(self, encode, y=None):
        return Laplace(torch.zeros_like(self.scale), self.scale)


class StudentTPrior(Prior):
    def __init__(self, latent_dim, df: float = 4.0):
        super().__init__(latent_dim)
        self.log_df = torch.nn.Parameter(torch.full((latent_dim,), df).log())

    def forward(self, encode, y=None):
        return StudentT(self.log_df.exp())


class LaplacePosterior(Posterior):
    @property
    def features(self):
        return 2 * self.latent_dim

    def forward(self, features):
        loc, raw = features.chunk(2, dim=-1)
        return Laplace(loc, raw.exp())


@pytest.mark.parametrize("prior", [LaplacePrior, StudentTPrior])
@pytest.mark.parametrize("posterior", [DiagonalNormalPosterior, LaplacePosterior])
@pytest.mark.parametrize(
    "objective",
    [
        ELBO(free_bits=0.1),
        ELBO(estimator="stl", free_bits=0.1),
        IWAE(mc_samples=2),
        IWAE("dreg", mc_samples=2),
        BetaTC(size=9),
        InfoVAE(),
    ],
)
def test_distributions_of_ones_own_work_with_every_objective(prior, posterior, objective):
    q = posterior(3)
    likelihood = NormalLikelihood(SHAPE)
    model = VAE(MLPEncoder(SHAPE, q.features), MLPDecoder(3, SHAPE), q, prior(3), likelihood)
    objective.check(model)
    k = objective.mc_samples
    bound = objective(model, (torch.rand(4, *SHAPE), None), torch.randn(k, 4, objective.noise_dim(model)), 0)
    bound.loss.backward()
    assert bound.loss.isfinite() and all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
    assert all(p.grad is not None for p in model.prior.parameters())


def test_walks_use_the_quantiles_and_moments_of_a_prior_of_ones_own():
    q = DiagonalNormalPosterior(2)
    model = VAE(MLPEncoder(SHAPE, 4), MLPDecoder(2, SHAPE), q, LaplacePrior(2, 0.5), NormalLikelihood(SHAPE))
    places = torch.tensor([0.1, 0.5, 0.9], dtype=F64)
    expected = scipy.stats.laplace(0, 0.5).ppf(places)
    np.testing.assert_allclose(walks.prior_quantiles(model, places), np.stack([expected] * 2, 1), atol=1e-6)
    mean, std = walks.prior_moments(model)
    assert mean.tolist() == [0, 0] and std.tolist() == pytest.approx([0.5 * 2**0.5] * 2)
