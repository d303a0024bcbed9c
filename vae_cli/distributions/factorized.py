"""Plain torch distributions as latent distributions."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal, StudentT

from vae_cli.distributions.latent import LatentDistribution, OptionalMethod, take_rows
from vae_cli.distributions.normals import DiagonalNormal
from vae_cli.errors import ConfigError

FARTHEST = 1e-15  # probability from 0 and 1 beyond which base noise is cut off, at 7.9 standard deviations


def as_latent(distribution: Distribution) -> LatentDistribution:
    """Return a torch distribution of independent dimensions, whose last batch dimension is D, as a latent one.

    Raises:
        ConfigError: if it has no `icdf` to map base noise with, integers as parameters, or another shape.
    """
    if isinstance(distribution, LatentDistribution):
        return distribution
    if isinstance(distribution, Independent) and distribution.reinterpreted_batch_ndims == 1:
        distribution = distribution.base_dist
    name = type(distribution).__name__
    if distribution.event_shape or not distribution.batch_shape:
        raise ConfigError(
            f"{name} has batch shape {tuple(distribution.batch_shape)} and event shape "
            f"{tuple(distribution.event_shape)}: give it latent_dim as its last batch dimension and no event shape, or "
            "subclass LatentDistribution"
        )
    if not all(getattr(distribution, key).is_floating_point() for key in distribution.arg_constraints):
        raise ConfigError(f"{name} has parameters that are integers, which would round others: make them floats")
    if isinstance(distribution, Normal):
        return DiagonalNormal(distribution.loc, distribution.scale.log())
    if type(distribution).icdf is Distribution.icdf and not isinstance(distribution, StudentT):
        raise ConfigError(f"{name} has no icdf to map base noise with: subclass LatentDistribution for it")
    return Factorized(distribution)


class Factorized(LatentDistribution):
    """Independent dimensions z_d = F_d⁻¹(Φ(ε_d)), with F the distribution function of a torch distribution.

    Args:
        base: of batch shape (*batch, D) and no event dimensions, with an `icdf`; or a `StudentT`.
    """

    is_factorized = True

    def __init__(self, base: Distribution) -> None:
        self.base = base
        super().__init__(base.batch_shape[:-1], base.batch_shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.base.mean

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        # float32 has no probability between 1 - 6e-8 and 1; MPS has no float64
        precise = noise if noise.device.type == "mps" else noise.double()
        z = self.quantiles(torch.special.ndtr(precise)).to(noise.dtype)
        return z, self.log_prob(z)

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return self.base.log_prob(value).sum(-1)

    def log_prob_by_dimension(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b d"]:
        return self.base.log_prob(value)

    def quantiles(self, probability: Float[Tensor, "*draws #d"]) -> Float[Tensor, "*b d"]:
        edge = max(FARTHEST, torch.finfo(probability.dtype).eps)
        inside = probability.clamp(edge, 1 - edge)
        return student_t_icdf(self.base, inside) if isinstance(self.base, StudentT) else self.base.icdf(inside)

    def provides(self, method: OptionalMethod) -> bool:
        needs_variance = method in ("moments", "covariance")
        return super().provides(method) and (not needs_variance or bool(self.base.variance.isfinite().all()))

    def moments(self) -> tuple[Float[Tensor, "*batch d"], Float[Tensor, "*batch d"]]:
        return self.base.mean, self.base.stddev

    def covariance(self) -> Float[Tensor, "*batch d d"]:
        return torch.diag_embed(self.base.variance)

    def marginals(self) -> Factorized:
        return self

    def frozen(self) -> Factorized:
        return self._with_parameters(Tensor.detach)

    def select(self, index: Tensor) -> Factorized:
        return self._with_parameters(lambda parameter: take_rows(parameter.expand(self.base.batch_shape), index))

    def _with_parameters(self, change: Callable[[Tensor], Tensor]) -> Factorized:
        family: Callable[..., Distribution] = type(self.base)
        return Factorized(family(**{name: change(getattr(self.base, name)) for name in self.base.arg_constraints}))


def student_t_icdf(p: StudentT, probability: Tensor) -> Tensor:
    """Return the quantiles of Student's t, which torch lacks, by SciPy's; the slope in `df` is a difference."""
    from scipy.special import stdtrit

    def standard(df: Tensor) -> Tensor:
        values = stdtrit(df.detach().double().cpu().numpy(), probability.detach().double().cpu().numpy())
        return torch.as_tensor(values).to(probability)

    t = standard(p.df)
    if p.df.requires_grad:
        step = 1e-4 * p.df.detach().double()
        slope = (standard(p.df.double() + step) - standard(p.df.double() - step)) / (2 * step)
        t = t + slope * (p.df - p.df.detach())
    return p.loc + p.scale * t
