"""Normal distributions of a latent vector that map given base noise, so that nothing in a model draws."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import constraints

from vae_cli.distributions.latent import LatentDistribution, take_rows

LOG_SQRT_2PI = 0.5 * math.log(2 * math.pi)


def standard_log_density(noise: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
    """Return log N(ε; 0, I), in nats."""
    return noise.square().sum(-1) * -0.5 - noise.shape[-1] * LOG_SQRT_2PI


class DiagonalNormal(LatentDistribution):
    r"""N(μ, diag σ²) over vectors.

        log p(z) = −½ Σ_d [ ((z_d − μ_d) / σ_d)² + 2 log σ_d + log 2π ]

    Args:
        loc: μ, (*batch, D).
        log_scale: log σ, (*batch, D).
    """

    arg_constraints = {"loc": constraints.real_vector, "log_scale": constraints.real_vector}
    has_rsample = True
    is_factorized = True

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
        """Return z = μ + σ ε and log p(z)."""
        z = torch.addcmul(self.loc, self.scale, noise)
        return z, standard_log_density(noise) - self.log_scale.sum(-1)

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.rsample_and_log_prob(noise)[0]

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return standard_log_density((value - self.loc) / self.scale) - self.log_scale.sum(-1)

    def log_prob_by_dimension(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b d"]:
        return -0.5 * ((value - self.loc) / self.scale).square() - self.log_scale - LOG_SQRT_2PI

    def log_prob_of_all(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*draws c"]:
        r"""Return log p_c(z) by matrix products, without the D numbers in between of every pair:

            log p_c(z) = −½ Σ_d z_d² / σ_cd² + Σ_d z_d μ_cd / σ_cd² + log p_c(0)

        in float64, since these terms may be far larger than their sum: their rounding costs less than that of z to
        float32 does.
        """
        if self.loc.dim() != 2 or value.device.type == "mps":  # which has no float64
            return super().log_prob_of_all(value)
        loc, log_scale, z = self.loc.double(), self.log_scale.double(), value.double().reshape(-1, value.shape[-1])
        precision = torch.exp(-2 * log_scale)
        weighted = loc * precision
        at_zero = -(0.5 * loc * weighted + log_scale + LOG_SQRT_2PI).sum(-1)
        weights = torch.cat([-0.5 * precision, weighted], dim=1)
        log_p = torch.addmm(at_zero, torch.cat([z.square(), z], dim=1), weights.T)
        return log_p.to(value.dtype).reshape(*value.shape[:-1], len(loc))

    def quantiles(self, probability: Float[Tensor, "*draws #d"]) -> Float[Tensor, "*b d"]:
        return self.loc + torch.special.ndtri(probability).to(self.loc) * self.scale

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.scale

    def covariance(self) -> Float[Tensor, "*batch d d"]:
        return torch.diag_embed(self.variance)

    def marginals(self) -> DiagonalNormal:
        return self

    def select(self, index: Tensor) -> DiagonalNormal:
        return DiagonalNormal(take_rows(self.loc, index), take_rows(self.log_scale, index))

    def frozen(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc.detach(), self.log_scale.detach())

    def entropy(self) -> Tensor:
        return self.log_scale.sum(-1) + self.event_shape[0] * (0.5 + LOG_SQRT_2PI)


class StandardNormal(DiagonalNormal):
    """N(0, I) over vectors, whose density and divergences take fewer operations.

    Args:
        zeros: (D,).
    """

    arg_constraints = {}  # its one parameter is a constant

    def __init__(self, zeros: Float[Tensor, "d"]) -> None:
        super().__init__(zeros, zeros)

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return standard_log_density(value)


class FullNormal(LatentDistribution):
    r"""N(μ, L Lᵀ) over vectors, with L lower triangular and its diagonal positive.

        log p(z) = −½ |L⁻¹(z − μ)|² − Σ_d log L_dd − ½ D log 2π

    Args:
        loc: μ, (*batch, D).
        scale_tril: L, (*batch, D, D).
    """

    arg_constraints = {"loc": constraints.real_vector, "scale_tril": constraints.lower_cholesky}
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
        """Return z = μ + L ε and log p(z)."""
        z = self.loc + (self.scale_tril @ noise.unsqueeze(-1)).squeeze(-1)
        return z, standard_log_density(noise) - self.log_det

    def rsample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        noise = torch.randn(
            self._extended_shape(torch.Size(sample_shape)), dtype=self.loc.dtype, device=self.loc.device
        )
        return self.rsample_and_log_prob(noise)[0]

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        centered = (value - self.loc).unsqueeze(-1)
        whitened = torch.linalg.solve_triangular(self.scale_tril, centered, upper=False).squeeze(-1)
        return standard_log_density(whitened) - self.log_det

    def moments(self) -> tuple[Tensor, Tensor]:
        return self.loc, self.variance.sqrt()

    def covariance(self) -> Float[Tensor, "*batch d d"]:
        return self.scale_tril @ self.scale_tril.mT

    def marginals(self) -> DiagonalNormal:
        return DiagonalNormal(self.loc, 0.5 * self.variance.log())

    def select(self, index: Tensor) -> FullNormal:
        return FullNormal(take_rows(self.loc, index), take_rows(self.scale_tril, index))

    def frozen(self) -> FullNormal:
        return FullNormal(self.loc.detach(), self.scale_tril.detach())

    def entropy(self) -> Tensor:
        return self.log_det + self.event_shape[0] * (0.5 + LOG_SQRT_2PI)
