"""Normalizing flows, through zuko: distributions that are invertible maps of a normal one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution, constraints

from vae_cli.distributions.normals import DiagonalNormal
from vae_cli.errors import ConfigError

KINDS = ("maf", "nsf", "coupling")
LARGEST = 1 << 28  # parameters that a flow may have
TABLES = 1 << 23  # entries of the tables that autoregressive flows are built with
LAYERS = 1000

_most_parameters: ContextVar[int] = ContextVar("most_parameters", default=LARGEST)


@contextmanager
def at_most(parameters: int) -> Iterator[None]:
    """Refuse meanwhile to build a flow with more parameters, before any memory is taken for it."""
    before = _most_parameters.set(min(parameters, LARGEST))
    try:
        yield
    finally:
        _most_parameters.reset(before)


class FlowDistribution(Distribution):
    r"""z = T(u) for u from a normal base distribution: log p(z) = log p(u) − log |det ∂T/∂u|

    D. J. Rezende and S. Mohamed, Variational Inference with Normalizing Flows, 2015.

    Args:
        base: of u, of batch shape (*batch,).
        flow: context (*batch, context) → T, or → T⁻¹ where `inverse`.
        context: what T depends on; None where it depends on nothing.
        inverse: whether the flow gives T⁻¹.
        is_frozen: whether neither T nor the base receives a gradient.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

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
        """T of the base's mean: where the middle of the base goes, which is the mean of none but linear maps."""
        return self.transform(self.base.mean)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws d"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """z and log p(z) for base noise ε ~ N(0, I), (K, *batch, D)."""
        u, log_density = self.base.rsample_and_log_prob(noise)
        with self._gradients():
            z, log_det = self.transform.call_and_ladj(u)
        return z, log_density - log_det

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """In nats."""
        # zuko's coupling does not broadcast a value against the context.
        value = value.expand(*torch.broadcast_shapes(value.shape[:-1], self.batch_shape), value.shape[-1])
        with self._gradients():
            u, log_det = self.transform.inv.call_and_ladj(value)
        return self.base.log_prob(u) + log_det

    def select(self, index: Tensor) -> FlowDistribution:
        """The distributions of the batch at an index, of its shape."""
        context = None if self.context is None else self.context[index]
        return FlowDistribution(self.base.select(index), self.flow, context, self.inverse, self.is_frozen)

    def frozen(self) -> FlowDistribution:
        """The same distribution, whose parameters receive no gradient."""
        context = None if self.context is None else self.context.detach()
        return FlowDistribution(self.base.frozen(), self.flow, context, self.inverse, is_frozen=True)

    @contextmanager
    def _gradients(self) -> Iterator[None]:
        """Record no gradient of the flow's parameters meanwhile, if the distribution is frozen."""
        frozen = [p for p in self.flow.parameters() if self.is_frozen and p.requires_grad]
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
    _check_size(kind, latent_dim, context, transforms, hidden, bins)
    import zuko

    # zuko asks for values while it builds its masks: it cannot be sketched without memory.
    with torch.device("cpu"):
        settings = {"context": context, "transforms": transforms, "hidden_features": tuple(hidden)}
        if kind == "nsf":
            return zuko.flows.NSF(latent_dim, bins=bins, **settings).transform
        return {"maf": zuko.flows.MAF, "coupling": zuko.flows.RealNVP}[kind](latent_dim, **settings).transform


def widest(kind: str, latent_dim: int, context: int, hidden: Sequence[int], bins: int) -> int:
    """About how many numbers a flow holds at once for the density of one z: its widest layer, what is made of it, and
    that for every pass, of which an autoregressive one takes one per dimension. Measured with zuko 1.6."""
    if kind == "nsf":
        return 12 * latent_dim * max(3 * bins * latent_dim, latent_dim + context, *hidden)
    passes = latent_dim if kind == "maf" else 1
    return 4 * passes * max(2 * latent_dim, latent_dim + context, *hidden)


def _check_size(kind: str, latent_dim: int, context: int, transforms: int, hidden: Sequence[int], bins: int) -> None:
    """Refuse a flow whose building takes too much, by a lower bound of its parameters and by its tables."""
    each = 3 * bins - 1 if kind == "nsf" else 2
    inputs, outputs = latent_dim + context, latent_dim * each
    if kind == "coupling":
        inputs, outputs = latent_dim // 2 + context, latent_dim // 2 * each
    elif latent_dim == 1:
        inputs = context
    widths = [inputs, *hidden, outputs]
    parameters = transforms * sum(a * b for a, b in zip(widths, widths[1:]))
    tables = 0 if kind == "coupling" else outputs * inputs + 8 * latent_dim**2
    if parameters > _most_parameters.get() or tables > TABLES or transforms * (len(hidden) + 1) > LAYERS:
        shown = ", ".join(map(str, hidden[:5])) + (", …" if len(hidden) > 5 else "")
        raise ConfigError(
            f"kind={kind} with transforms={transforms}, hidden=[{shown}] over {latent_dim} dimensions is too large; "
            "choose a smaller latent_dim or flow, or kind=coupling"
        )
