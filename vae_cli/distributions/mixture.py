"""Mixtures of latent distributions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, constraints

from vae_cli.distributions.normals import log_prob_by_each


class Mixture(Distribution):
    r"""p(z) = Σ_k w_k p_k(z)

    Args:
        components: p_k, of batch shape (*batch, components).
        log_weights: log w_k, (components,), normalized.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real_vector

    def __init__(self, components: Distribution, log_weights: Float[Tensor, "c"]) -> None:
        self.components, self.log_weights = components, log_weights
        super().__init__(components.batch_shape[:-1], components.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp().unsqueeze(-1) * self.components.mean).sum(-2)

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        """In nats."""
        return torch.logsumexp(self.log_weights + log_prob_by_each(self.components, value), dim=-1)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """z and log p(z) for base noise ε ~ N(0, I): its first number chooses the component, the others its z.

        The choice has no gradient.
        """
        steps = self.log_weights.exp().cumsum(-1)
        uniform = torch.special.ndtr(noise[..., :1]) * steps[-1]
        chosen = torch.searchsorted(steps, uniform).clamp(max=len(steps) - 1)
        z = self._push_one(chosen.squeeze(-1), noise[..., 1:])
        return z, self.log_prob(z)

    def _push_one(self, chosen: Tensor, noise: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b d"]:
        if not self.batch_shape and hasattr(self.components, "select"):
            return self.components.select(chosen).rsample_and_log_prob(noise)[0]
        every, _ = self.components.rsample_and_log_prob(noise.unsqueeze(-2))  # type: ignore[attr-defined]
        index = chosen[..., None, None].expand(*chosen.shape, 1, every.shape[-1])
        return every.gather(-2, index).squeeze(-2)
