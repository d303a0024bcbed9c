"""Normal distributions of a latent vector that map given base noise, so that nothing in a model draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)
OF_A_PAIR = 2  # numbers that `log_prob_by_each` of diagonal normals holds for a z and a component


def standard_log_density(noise: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """log N(ε; 0, I), in nats."""
    return noise.square().sum(-1) * -0.5 - noise.shape[-1] * LOG_SQRT_2PI


class DiagonalNormal(Distribution):
    r"""N(μ, diag σ²) over vectors.

        log p(z) = −½ Σ_d [ ((z_d − μ_d) / σ_d)² + 2 log σ_d + log 2π ]

    Args:
        loc: μ, (*batch, D).
        log_scale: log σ, (*batch, D).
    """

    arg_constraints = {"loc": constraints.real_vector, "log_scale": constraints.real_vector}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*batch d"], log_scale: Float[Tensor, "*batch d"]) -> None:
        self.loc, self.log_scale = loc, log_scale
        self.scale = log_scale.exp()
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return self.scale

    @property
    def variance(self) -> Tensor:
        return self.scale.square()

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """z = μ + σ ε for base noise ε ~ N(0, I), (K, *batch, D), and log p(z), (K, *batch)."""
        z = torch.addcmul(self.loc, self.scale, noise)
        return z, standard_log_density(noise) - self.log_scale.sum(-1)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.rsample_and_log_prob(noise)[0]

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """In nats, summed over the D dimensions."""
        return standard_log_density((value - self.loc) / self.scale) - self.log_scale.sum(-1)

    def log_prob_by_dimension(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b d"]:
        """Its D terms, which belong to independent dimensions."""
        return -0.5 * ((value - self.loc) / self.scale).square() - self.log_scale - LOG_SQRT_2PI

    def marginals(self) -> DiagonalNormal:
        """The distribution of independent dimensions with the same marginals."""
        return self

    def select(self, index: Tensor) -> DiagonalNormal:
        """The distributions of the batch at an index, of its shape."""
        return DiagonalNormal(self.loc[index], self.log_scale[index])

    def frozen(self) -> DiagonalNormal:
        """The same distribution, whose parameters receive no gradient."""
        return DiagonalNormal(self.loc.detach(), self.log_scale.detach())

    def entropy(self) -> Tensor:
        return self.log_scale.sum(-1) + self.event_shape[0] * (0.5 + LOG_SQRT_2PI)


def log_prob_by_each(p: Distribution, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws c"]:
    r"""log p_c(z) of every z under every one of the C distributions of p's batch, in nats.

    Of diagonal normals by matrix products, without the D numbers in between of every pair:

        log p_c(z) = −½ Σ_d z_d² / σ_cd² + Σ_d z_d μ_cd / σ_cd² + log p_c(0)

    in float64, since these terms may be far larger than their sum: what their rounding costs is less than what that of
    z to float32 does.
    """
    if not isinstance(p, DiagonalNormal) or p.loc.dim() != 2 or value.device.type == "mps":  # which has no float64
        return p.log_prob(value.unsqueeze(-2))
    loc, log_scale, z = p.loc.double(), p.log_scale.double(), value.double().reshape(-1, value.shape[-1])
    precision = torch.exp(-2 * log_scale)
    weighted = loc * precision
    at_zero = -(0.5 * loc * weighted + log_scale + LOG_SQRT_2PI).sum(-1)
    weights = torch.cat([-0.5 * precision, weighted], dim=1)
    found = torch.addmm(at_zero, torch.cat([z.square(), z], dim=1), weights.T)
    return found.to(value.dtype).reshape(*value.shape[:-1], len(loc))


class FullNormal(Distribution):
    r"""N(μ, L Lᵀ) over vectors, with L lower triangular and its diagonal positive.

        log p(z) = −½ |L⁻¹(z − μ)|² − Σ_d log L_dd − ½ D log 2π

    Args:
        loc: μ, (*batch, D).
        scale_tril: L, (*batch, D, D).
    """

    arg_constraints = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}
    support = constraints.real_vector
    has_rsample = True

    def __init__(self, loc: Float[Tensor, "*batch d"], scale_tril: Float[Tensor, "*batch d d"]) -> None:
        self.loc, self.scale_tril = loc, scale_tril
        super().__init__(loc.shape[:-1], loc.shape[-1:], validate_args=False)

    @property
    def mean(self) -> Tensor:
        return self.loc

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.square().sum(-1)

    @property
    def log_det(self) -> Tensor:
        """log |det L|."""
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """z = μ + L ε for base noise ε ~ N(0, I), (K, *batch, D), and log p(z), (K, *batch)."""
        z = self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        return z, standard_log_density(noise) - self.log_det

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.rsample_and_log_prob(noise)[0]

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """In nats."""
        centered = (value - self.loc).unsqueeze(-1)
        whitened = torch.linalg.solve_triangular(self.scale_tril, centered, upper=False).squeeze(-1)
        return standard_log_density(whitened) - self.log_det

    def marginals(self) -> DiagonalNormal:
        """The distribution of independent dimensions with the same marginals."""
        return DiagonalNormal(self.loc, 0.5 * self.variance.log())

    def select(self, index: Tensor) -> FullNormal:
        """The distributions of the batch at an index, of its shape."""
        return FullNormal(self.loc[index], self.scale_tril[index])

    def frozen(self) -> FullNormal:
        """The same distribution, whose parameters receive no gradient."""
        return FullNormal(self.loc.detach(), self.scale_tril.detach())

    def entropy(self) -> Tensor:
        return self.log_det + self.event_shape[0] * (0.5 + LOG_SQRT_2PI)
