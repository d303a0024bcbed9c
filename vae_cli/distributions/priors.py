"""Priors p(z)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.flows import FlowDistribution, build_flow, widest
from vae_cli.distributions.mixture import Mixture
from vae_cli.distributions.normals import OF_A_PAIR, DiagonalNormal
from vae_cli.errors import ConfigError

Encode = Callable[..., Distribution]  # images, and labels where there are any, to q(z|x)


class Prior(nn.Module, ABC):
    """A distribution over z with `rsample_and_log_prob(noise)` and `log_prob`.

    Args:
        latent_dim: D.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def noise_dim(self) -> int:
        """How many base normals one draw of z takes."""
        return self.latent_dim

    def values(self, posterior: int) -> int:
        """How many numbers its density holds at once for one z, of which a posterior's holds so many."""
        return self.latent_dim

    def tempered(self, noise: Tensor, temperature: float) -> Tensor:
        """Base noise that spreads z less around the middle of the prior, or of each of its components, or more."""
        return temperature * noise

    @property
    def starting_images(self) -> int:
        """How many training images it wants to start at."""
        return 0

    def start_at(self, images: Tensor) -> None:
        """Start at so many training images (N, C, H, W) in [0, 1]."""

    @abstractmethod
    def forward(self, encode: Encode, y: Tensor | None = None) -> Distribution:
        """p(z), or p(z|y); `encode` maps images to q(z|x), for priors made of posteriors."""


class StandardNormalPrior(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)

    _zeros: Tensor

    def forward(self, encode: Encode, y: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(self._zeros, self._zeros)


class LearnedNormalPrior(Prior):
    """p(z) = N(μ, diag σ²) with μ and σ trained."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, encode: Encode, y: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(self.loc, bounded_log_scale(self.log_scale))


class _MixturePrior(Prior):
    """A mixture of so many components; the first number of the noise chooses among them.

    Args:
        latent_dim: D.
        components: how many.
    """

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__(latent_dim)
        self.components = components

    @property
    def noise_dim(self) -> int:
        return 1 + self.latent_dim

    def values(self, posterior: int) -> int:
        return self.components * OF_A_PAIR

    def tempered(self, noise: Tensor, temperature: float) -> Tensor:
        return torch.cat([noise[..., :1], temperature * noise[..., 1:]], dim=-1)


class MixtureOfNormalsPrior(_MixturePrior):
    """p(z) = Σ_k w_k N(z; μ_k, diag σ_k²) with weights, means and scales trained.

    Args:
        latent_dim: D.
        components: how many.
    """

    def __init__(self, latent_dim: int, components: int = 10) -> None:
        super().__init__(latent_dim, components)
        self.logits = nn.Parameter(torch.zeros(components))
        self.loc = nn.Parameter(torch.randn(components, latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(components, latent_dim))

    def forward(self, encode: Encode, y: Tensor | None = None) -> Mixture:
        components = DiagonalNormal(self.loc, bounded_log_scale(self.log_scale))
        return Mixture(components, self.logits.log_softmax(-1))


class VampPrior(_MixturePrior):
    """p(z) = (1/K) Σ_k q(z|u_k), a mixture of the posteriors of K trained pseudo-inputs u_k.

    J. M. Tomczak and M. Welling, VAE with a VampPrior, 2018. The pseudo-inputs are kept in (0, 1) by a logistic
    function, where the paper cuts them off.

    With labels it is p(z|y) = (1/K) Σ_k q(z|u_k, y).

    Args:
        latent_dim: D.
        shape: (C, H, W) of the images.
        components: K.
        start: `data`, they start as training images; `random`, as noise around the mean gray.
        classes: how many labels there are.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, int, int],
        components: int = 100,
        start: str = "data",
        classes: int = 0,
    ) -> None:
        super().__init__(latent_dim, components)
        if start not in ("data", "random"):
            raise ConfigError(f"start={start} is neither data nor random")
        self.start, self.classes = start, classes
        self.logits = nn.Parameter(torch.randn(components, *shape))

    def values(self, posterior: int) -> int:
        return self.components * posterior

    @property
    def starting_images(self) -> int:
        return len(self.logits) if self.start == "data" else 0

    @torch.no_grad()
    def start_at(self, images: Tensor) -> None:
        self.logits.copy_(torch.logit(images.clamp(0.02, 0.98)))

    def forward(self, encode: Encode, y: Tensor | None = None) -> Mixture:
        count = len(self.logits)
        components = encode(self.logits.sigmoid()) if y is None else self._labeled(encode, y)
        return Mixture(components, self.logits.new_full((count,), -math.log(count)))

    def _labeled(self, encode: Encode, y: Tensor) -> Distribution:
        """q(z|u_k, y), of batch shape (*y.shape, K): inferred once for every class, or for every label if those are
        fewer."""
        flat, number = y.flatten(), torch.arange(len(self.logits), device=y.device)
        every_class = self.classes <= len(flat)
        labels = torch.arange(self.classes, device=y.device) if every_class else flat
        images = self.logits.sigmoid().repeat(len(labels), 1, 1, 1)
        q = encode(images, labels.repeat_interleave(len(number)))
        if not hasattr(q, "select"):
            raise ConfigError("prior=vampprior with conditional=true needs a posterior that has select(index)")
        rows = flat if every_class else torch.arange(len(flat), device=y.device)
        return q.select((rows.unsqueeze(-1) * len(number) + number).unflatten(0, y.shape))


class FlowPrior(Prior):
    """p(z): a flow of the standard normal. The density takes one pass; drawing from `maf` and `nsf` one per
    dimension.

    L. Dinh, J. Sohl-Dickstein and S. Bengio, Density Estimation using Real NVP, 2017; G. Papamakarios et al., Masked
    Autoregressive Flow for Density Estimation, 2017; C. Durkan et al., Neural Spline Flows, 2019.

    Args:
        latent_dim: D.
        kind: `nsf`, `maf` or `coupling`; see `build_flow`.
        transforms: how many maps are composed.
        hidden: widths of each map's network.
        bins: of the splines of `nsf`.
    """

    def __init__(
        self,
        latent_dim: int,
        kind: str = "coupling",
        transforms: int = 4,
        hidden: Sequence[int] = (64, 64),
        bins: int = 8,
    ) -> None:
        super().__init__(latent_dim)
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)
        self.flow = build_flow(kind, latent_dim, 0, transforms, hidden, bins)
        self.widest = widest(kind, latent_dim, 0, hidden, bins)

    _zeros: Tensor

    def values(self, posterior: int) -> int:
        return self.widest

    def forward(self, encode: Encode, y: Tensor | None = None) -> FlowDistribution:
        return FlowDistribution(DiagonalNormal(self._zeros, self._zeros), self.flow, inverse=True)
