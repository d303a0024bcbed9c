"""Priors p(z)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.constraints import Count, Widths
from vae_cli.distributions.bounded import bounded_log_scale
from vae_cli.distributions.flows import FlowDistribution, Kind, build_flow
from vae_cli.distributions.latent import LatentDistribution
from vae_cli.distributions.mixture import Mixture
from vae_cli.distributions.normals import DiagonalNormal, StandardNormal
from vae_cli.errors import ConfigError

# Training examples for each pseudo-input of a VampPrior: fewer are warned of, and so many are proposed. The paper has
# 100 on MNIST. Of 4,000 images 8 each with the paper's networks are no better than the standard prior.
FEWEST_EXAMPLES, PROPOSED_EXAMPLES = 10, 20

Encode = Callable[..., LatentDistribution]  # examples, and labels of a conditional model, to q(z|x)


class Prior(nn.Module, ABC):
    """A module that gives p(z).

    `forward` returns a torch distribution of independent dimensions (D,) that has an `icdf`, or a `StudentT`; or else
    a `LatentDistribution`. See `as_latent`.

    Args:
        latent_dim: D.
    """

    def __init__(self, latent_dim: int) -> None:
        super().__init__()
        self.latent_dim = latent_dim

    @property
    def noise_dim(self) -> int:
        """Base normals that one draw of z takes."""
        return self.latent_dim

    def tempered(self, noise: Tensor, temperature: float) -> Tensor:
        """Return base noise that spreads z less or more around the mean of the prior, or of each component."""
        return temperature * noise

    @property
    def starting_images(self) -> int:
        """Number of training examples that `start_at` needs."""
        return 0

    def start_at(self, images: Tensor) -> None:
        """Set the parameters from training examples (N, *shape) in [0, 1]."""

    def warning(self, examples: int, noun: str) -> str | None:
        """Return what may go wrong with so few training examples and what to try, in a line; None if nothing is known.

        Args:
            examples: number of training examples.
            noun: what one is called.
        """
        return None

    @abstractmethod
    def forward(self, encode: Encode, y: Tensor | None = None) -> Distribution:
        """Return p(z), or p(z|y); `encode` maps examples to q(z|x), for priors made of posteriors."""


class StandardNormalPrior(Prior):
    """p(z) = N(0, I)."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)

    _zeros: Tensor

    def forward(self, encode: Encode, y: Tensor | None = None) -> DiagonalNormal:
        return StandardNormal(self._zeros)


class LearnedNormalPrior(Prior):
    """p(z) = N(μ, diag σ²) with μ and σ trained."""

    def __init__(self, latent_dim: int) -> None:
        super().__init__(latent_dim)
        self.loc = nn.Parameter(torch.zeros(latent_dim))
        self.log_scale = nn.Parameter(torch.zeros(latent_dim))

    def forward(self, encode: Encode, y: Tensor | None = None) -> DiagonalNormal:
        return DiagonalNormal(self.loc, bounded_log_scale(self.log_scale))


class _MixturePrior(Prior):
    """A mixture, whose component the first number of the noise chooses."""

    def __init__(self, latent_dim: int, components: int) -> None:
        super().__init__(latent_dim)
        self.components = components

    @property
    def noise_dim(self) -> int:
        return 1 + self.latent_dim

    def tempered(self, noise: Tensor, temperature: float) -> Tensor:
        return torch.cat([noise[..., :1], temperature * noise[..., 1:]], dim=-1)


class MixtureOfNormalsPrior(_MixturePrior):
    """p(z) = Σ_k w_k N(z; μ_k, diag σ_k²) with weights, means and scales trained.

    Args:
        latent_dim: D.
        components: how many.
    """

    def __init__(self, latent_dim: int, components: Count = 10) -> None:
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
    function, where the paper cuts them off. With few training examples it may be no better than the standard prior: see
    `warning`.

    With labels it is p(z|y) = (1/K) Σ_k q(z|u_k, y).

    Args:
        latent_dim: D.
        shape: of an example.
        components: K.
        start: `data`, the pseudo-inputs start as training examples; `random`, as noise around one half.
        classes: number of labels.
        is_bounded: examples have values in [0, 1], and are no standardized ones.
    """

    def __init__(
        self,
        latent_dim: int,
        shape: tuple[int, ...],
        components: Count = 100,
        start: Literal["data", "random"] = "data",
        classes: int = 0,
        is_bounded: bool = True,
    ) -> None:
        super().__init__(latent_dim, components)
        self.start, self.classes, self.is_bounded = start, classes, is_bounded
        self.logits = nn.Parameter(torch.randn(components, *shape))

    @property
    def starting_images(self) -> int:
        return len(self.logits) if self.start == "data" else 0

    def warning(self, examples: int, noun: str) -> str | None:
        count = len(self.logits)
        if count == 1 or count * FEWEST_EXAMPLES <= examples:
            return None
        return (
            f"the VampPrior has {count:,} pseudo-inputs for {examples:,} training {noun}s, fewer than "
            f"{FEWEST_EXAMPLES} for each: so few may gain nothing by it; compare the validation ELBO with that of "
            f"prior=standard_normal and of prior.components={max(1, examples // PROPOSED_EXAMPLES)}"
        )

    @torch.no_grad()
    def start_at(self, images: Tensor) -> None:
        self.logits.copy_(torch.logit(images.clamp(0.02, 0.98)) if self.is_bounded else images)

    def forward(self, encode: Encode, y: Tensor | None = None) -> Mixture:
        count = len(self.logits)
        components = encode(self._inputs) if y is None else self._labeled(encode, y)
        return Mixture(components, self.logits.new_full((count,), -math.log(count)))

    @property
    def _inputs(self) -> Tensor:
        return self.logits.sigmoid() if self.is_bounded else self.logits

    def _labeled(self, encode: Encode, y: Tensor) -> LatentDistribution:
        """Return q(z|u_k, y), of batch shape (*y.shape, K), encoded once per class, or once per label if those are
        fewer."""
        flat, number = y.flatten(), torch.arange(len(self.logits), device=y.device)
        every_class = self.classes <= len(flat)
        labels = torch.arange(self.classes, device=y.device) if every_class else flat
        inputs = self._inputs.repeat(len(labels), *[1] * (self.logits.dim() - 1))
        q = encode(inputs, labels.repeat_interleave(len(number)))
        if not q.provides("select"):
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
        kind: Kind = "coupling",
        transforms: Count = 4,
        hidden: Widths = (64, 64),
        bins: Count = 8,
    ) -> None:
        super().__init__(latent_dim)
        self.register_buffer("_zeros", torch.zeros(latent_dim), persistent=False)
        self.flow = build_flow(kind, latent_dim, 0, transforms, hidden, bins)

    _zeros: Tensor

    def forward(self, encode: Encode, y: Tensor | None = None) -> FlowDistribution:
        return FlowDistribution(DiagonalNormal(self._zeros, self._zeros), self.flow, inverse=True)
