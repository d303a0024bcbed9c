"""Normalizing flows, through zuko: distributions that are invertible maps of a normal one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vae_cli.distributions.normals import DiagonalNormal
from vae_cli.errors import ConfigError

KINDS = ("maf", "nsf", "coupling")
LARGEST = 1 << 28  # parameters that a flow may have


class FlowDistribution(Distribution):
    r"""z = T(u) for u from a normal base distribution: log p(z) = log p(u) − log |det ∂T/∂u|

    D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015.

    Args:
        base: of u, of batch shape (*batch,).
        transform: gives T; called anew with `True` for one whose context receives no gradient.
        parameters: of T's networks; they receive no gradient where the distribution is frozen.
        is_frozen: whether it is.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(
        self,
        base: DiagonalNormal,
        transform: Callable[[bool], Any],
        parameters: Sequence[Tensor],
        is_frozen: bool = False,
    ) -> None:
        self.base, self._make, self.parameters, self.is_frozen = base, transform, parameters, is_frozen
        self.transform = transform(is_frozen)
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """T of the base's mean: where the middle of the base goes, which is the mean of none but linear maps."""
        return self.transform(self.base.mean)

    def push(self, noise: Float[Tensor, "*draws d"]) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """z and log p(z) for base noise ε ~ N(0, I), (K, *batch, D)."""
        u, log_density = self.base.push(noise)
        with self._gradients():
            z, log_det = self.transform.call_and_ladj(u)
        return z, log_density - log_det

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """In nats."""
        with self._gradients():
            u, log_det = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(u) + log_det

    def frozen(self) -> FlowDistribution:
        """The same distribution, whose parameters receive no gradient."""
        return FlowDistribution(self.base.frozen(), self._make, self.parameters, is_frozen=True)

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Record no gradient of the parameters meanwhile, if the distribution is frozen."""
        frozen = [parameter for parameter in self.parameters if self.is_frozen and parameter.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)


def build_flow(
    kind: str, latent_dim: int, context: int, transforms: int, hidden: Sequence[int], bins: int
) -> nn.Module:
    """zuko's module: context (*batch, context) → an invertible map of (*batch, latent_dim).

    Args:
        kind: `maf`, masked autoregressive affine; `nsf`, masked autoregressive rational-quadratic splines;
            `coupling`, affine on one half of the dimensions at a time (RealNVP).
        latent_dim: D.
        context: numbers it is conditioned on.
        transforms: how many maps are composed.
        hidden: widths of each map's network.
        bins: of the splines.

    Raises:
        ConfigError: for an unknown kind, a size it does not go with, or more parameters than are sensible.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind={kind} is none of {', '.join(KINDS)}")
    if kind == "coupling" and latent_dim < 2:
        raise ConfigError("kind=coupling needs latent_dim of at least 2; choose kind=maf or nsf")
    widths = [latent_dim + context, *hidden, latent_dim * (3 * bins if kind == "nsf" else 2)]
    if transforms * sum(a * b for a, b in zip(widths, widths[1:])) > LARGEST:
        raise ConfigError(f"a flow with transforms={transforms}, hidden={list(hidden)} over {latent_dim} is too large")
    import zuko

    # zuko asks for values while it builds its masks: it cannot be sketched without memory.
    with torch.device("cpu"):
        settings = {"context": context, "transforms": transforms, "hidden_features": tuple(hidden)}
        if kind == "nsf":
            return zuko.flows.NSF(latent_dim, bins=bins, **settings).transform
        return {"maf": zuko.flows.MAF, "coupling": zuko.flows.RealNVP}[kind](latent_dim, **settings).transform
