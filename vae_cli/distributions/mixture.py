"""Mixtures of latent distributions."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.distributions.latent import LatentDistribution


class Mixture(LatentDistribution):
    r"""p(z) = Σ_k w_k p_k(z)

    Args:
        components: p_k, of batch shape (*batch, components).
        log_weights: log w_k, (components,), normalized.
    """

    def __init__(self, components: LatentDistribution, log_weights: Float[Tensor, "c"]) -> None:
        self.components, self.log_weights = components, log_weights
        super().__init__(components.batch_shape[:-1], components.event_shape, validate_args=False)

    @property
    def mean(self) -> Tensor:
        return (self.log_weights.exp().unsqueeze(-1) * self.components.mean).sum(-2)

    def log_prob(self, value: Float[Tensor, "*draws d"]) -> Float[Tensor, "*b"]:
        return torch.logsumexp(self.log_weights + self.components.log_prob_of_all(value), dim=-1)

    def rsample_and_log_prob(
        self, noise: Float[Tensor, "*draws e"]
    ) -> tuple[Float[Tensor, "*b d"], Float[Tensor, "*b"]]:
        """Return z and log p(z): the first number of the noise chooses the component, the others make its z.

        The choice has no gradient.
        """
        steps = self.log_weights.exp().cumsum(-1)
        uniform = torch.special.ndtr(noise[..., :1]) * steps[-1]
        chosen = torch.searchsorted(steps, uniform).clamp(max=len(steps) - 1)
        if not self.batch_shape and self.components.provides("select"):
            z, _ = self.components.select(chosen.squeeze(-1)).rsample_and_log_prob(noise[..., 1:])
        else:
            every, _ = self.components.rsample_and_log_prob(noise[..., 1:].unsqueeze(-2))
            index = chosen.unsqueeze(-1).expand(*chosen.shape, every.shape[-1])
            z = every.gather(-2, index).squeeze(-2)
        return z, self.log_prob(z)
