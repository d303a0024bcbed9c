"""Normalizing flows, through zuko: distributions that are invertible maps of a normal one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.distributions.latent import LatentDistribution, take_rows
from vae_cli.distributions.normals import DiagonalNormal
from vae_cli.errors import ConfigError

Kind = Literal["coupling", "maf", "nsf"]
MOST_PARAMETERS = 1 << 26  # of a flow, each layer counted as at least LAYER
LAYER = 1 << 16
TABLE = 8  # parameters that an entry of the tables which zuko builds autoregressive flows from counts for


class FlowDistribution(LatentDistribution):
    r"""z = T(u) for u from a normal base distribution: log p(z) = log p(u) − log |det ∂T/∂u|

    D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015.

    Args:
        base: of u, of batch shape (*batch,).
        flow: context (*batch, context) → T, or → T⁻¹ where `inverse`.
        context: what T depends on; None where it depends on nothing.
        inverse: whether the flow gives T⁻¹.
        is_frozen: whether neither T nor the base receives a gradient.
    """

    def __init__(
        self,
        base: DiagonalNormal,
        flow: nn.Module,
        context: Tensor | None = None,
        inverse: bool = False,
        is_frozen: bool = False,
    ) -> None:
        self.base, self.flow, self.context = base, flow, context
        self.inverse, self.is_frozen = inverse, is_frozen
        with self._gradients():  # of one dimension, zuko computes the parameters of T at once
            transform = flow(context)
        self.transform = transform.inv if inverse else transform
        super().__init__(base.batch_shape, base.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        """T of the base's mean, which is the mean of z for linear T alone.

        The mean and the standard deviation of z have no closed form: `vae-encode` gives those of 200 draws, see
        `vae_cli.inference.codes`; walks take those of 10,000 draws of a prior, see `vae_cli.generation.walks`.
        """
        with self._gradients():
            return self.transform(self.base.mean)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        u, log_density = self.base.rsample_and_log_prob(noise)
        with self._gradients():
            z, log_det = self.transform.call_and_ladj(u)
        return z, log_density - log_det

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        # zuko's coupling does not broadcast a value against the context.
        value = value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), value.shape[-1])
        with self._gradients():
            u, log_det = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(u) + log_det

    def select(self, index: Tensor) -> FlowDistribution:
        context = None if self.context is None else take_rows(self.context, index)
        return FlowDistribution(self.base.select(index), self.flow, context, self.inverse, self.is_frozen)

    def frozen(self) -> FlowDistribution:
        context = None if self.context is None else self.context.detach()
        return FlowDistribution(self.base.frozen(), self.flow, context, self.inverse, is_frozen=True)

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Record no gradient of the flow's parameters in this context if the distribution is frozen."""
        frozen = [p for p in self.flow.parameters() if self.is_frozen and p.requires_grad]
        for parameter in frozen:
            parameter.requires_grad_(False)
        try:
            yield
        finally:
            for parameter in frozen:
                parameter.requires_grad_(True)


def build_flow(
    kind: Kind, latent_dim: int, context: int, transforms: int, hidden: Sequence[int], bins: int
) -> nn.Module:
    """Return zuko's module: context (*batch, context) → an invertible map of (*batch, latent_dim).

    Args:
        kind: `maf`, masked autoregressive affine; `nsf`, masked autoregressive rational-quadratic splines;
            `coupling`, affine on one half of the dimensions at a time (RealNVP).
        latent_dim: D.
        context: how many numbers it is conditioned on.
        transforms: how many maps are composed.
        hidden: widths of each map's network.
        bins: of the splines.

    Raises:
        ConfigError: for a latent_dim that the kind does not go with, or more parameters than are sensible.
    """
    if kind == "coupling" and latent_dim < 2:
        raise ConfigError("kind=coupling needs latent_dim of at least 2; choose kind=maf or nsf")
    # zuko reads values while it builds its masks, so the size of a flow cannot be found on the meta device.
    numbers = 3 * bins - 1 if kind == "nsf" else 2
    moved = latent_dim // 2 if kind == "coupling" else latent_dim
    widths = [moved + context, *hidden, numbers * moved]
    tables = 0 if kind == "coupling" else numbers * latent_dim * (latent_dim + context) + 8 * latent_dim**2
    parameters = transforms * sum(max(LAYER, a * b) for a, b in zip(widths, widths[1:]))
    if parameters + TABLE * tables > MOST_PARAMETERS:
        shown = ", ".join(map(str, hidden[:5])) + (", …" if len(hidden) > 5 else "")
        raise ConfigError(
            f"kind={kind} with transforms={transforms}, hidden=[{shown}] over {latent_dim} dimensions is too large; "
            "choose a smaller latent_dim or flow, or kind=coupling"
        )
    import zuko

    with torch.device("cpu"):
        settings = {"context": context, "transforms": transforms, "hidden_features": tuple(hidden)}
        if kind == "nsf":
            return zuko.flows.NSF(latent_dim, bins=bins, **settings).transform
        return {"maf": zuko.flows.MAF, "coupling": zuko.flows.RealNVP}[kind](latent_dim, **settings).transform
