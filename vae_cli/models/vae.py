"""The variational autoencoder: q(z|x), p(z) and p(x|z) in one module that never draws and never averages."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions import Likelihood, Posterior, Prior


@dataclass(frozen=True)
class Evidence:
    """What is known of B images after K draws of z each, in nats; nothing is averaged yet.

    Args:
        z: (K, B, D).
        log_p_x_given_z: (K, B).
        log_p_z: (K, B).
        log_q_z_given_x: (K, B).
        posterior: q(z|x), of batch shape (B,).
        prior: p(z).
        likelihood: p(x|z), of batch shape (K, B).
    """

    z: Float[Tensor, "k b d"]
    log_p_x_given_z: Float[Tensor, "k b"]
    log_p_z: Float[Tensor, "k b"]
    log_q_z_given_x: Float[Tensor, "k b"]
    posterior: Distribution
    prior: Distribution
    likelihood: Distribution


class VAE(nn.Module):
    """A variational autoencoder with one layer of latent variables.

        log p(x) = ELBO(x) + KL(q(z|x) ‖ p(z|x)),   ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014.

    Args:
        encoder: images (N, C, H, W) → features (N, posterior.features).
        decoder: latent vectors (N, D) → (N, *likelihood.output_shape).
        posterior: features → q(z|x).
        prior: p(z).
        likelihood: the decoder's output → p(x|z).
        precision: the type in which encoder and decoder multiply; densities keep the weights' type.
        classes: how many labels y it is conditioned on: q(z|x, y), p(x|z, y) and, where the prior is made of
            posteriors, p(z|y). Encoder and decoder then take y (N,) as a second argument. With 0 it sees no labels.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        posterior: Posterior,
        prior: Prior,
        likelihood: Likelihood,
        precision: torch.dtype = torch.float32,
        classes: int = 0,
    ) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood
        self.precision, self.classes = precision, classes

    @property
    def noise_dim(self) -> int:
        """How many base normals one draw of z from q(z|x) takes."""
        return self.posterior.noise_dim

    @property
    def values(self) -> int:
        """How many numbers are in memory at once for one draw of z, at its widest."""
        each = self.posterior.values if self.classes else self.posterior.values_of_each
        latent = max(self.noise_dim, self.posterior.values, self.prior.values(each))
        return max(latent, math.prod(self.likelihood.output_shape))

    def encode(self, x: Float[Tensor, "b c h w"], y: Tensor | None = None) -> Distribution:
        """q(z|x), of batch shape (B,)."""
        return self.posterior(self._run(self.encoder, x, y))

    def latent_prior(self, y: Tensor | None = None) -> Distribution:
        """p(z); or, of a conditional model whose prior depends on labels, p(z|y) of batch shape (N,)."""
        return self.prior(self.encode, y if self.classes else None)

    def decode(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Distribution:
        """p(x|z), of batch shape (*batch,)."""
        batch = z.shape[:-1]
        output = self._run(self.decoder, z.flatten(0, -2), None if y is None else y.expand(batch).flatten())
        return self.likelihood(output.unflatten(0, batch))

    def evidence(
        self,
        x: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "k b e"],
        y: Tensor | None = None,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> Evidence:
        """The terms of the bounds for the draws z that q(z|x) makes of base noise ε ~ N(0, I).

        All that depends on z is made of `through(z)`, which an objective may give to have a hand in z's gradient.
        """
        return self.weigh(x, noise, self.encode(x, y), self.latent_prior(y), y, through)

    def weigh(
        self,
        x: Float[Tensor, "b c h w"],
        noise: Float[Tensor, "k b e"],
        posterior: Distribution,
        prior: Distribution,
        y: Tensor | None = None,
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> Evidence:
        """The same with q(z|x) and p(z) at hand."""
        z, log_q = posterior.rsample_and_log_prob(noise)  # type: ignore[attr-defined]
        z = z if through is None else through(z)
        likelihood = self.decode(z, y)
        return Evidence(z, likelihood.log_prob(x), prior.log_prob(z), log_q, posterior, prior, likelihood)

    def sample(self, noise: Float[Tensor, "n e"], temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """p(x|z), of batch shape (N,), for z from the prior."""
        return self.decode(self.sample_latents(noise, temperature, y), y)

    def sample_latents(
        self, noise: Float[Tensor, "n e"], temperature: float = 1.0, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        """z from the prior, spread more or less by `temperature`."""
        z, _ = self.latent_prior(y).rsample_and_log_prob(self.prior.tempered(noise, temperature))  # type: ignore[attr-defined]
        return z

    def reconstruct(self, x: Float[Tensor, "b c h w"], y: Tensor | None = None) -> Distribution:
        """p(x|z) at the mean of q(z|x), of batch shape (B,)."""
        return self.decode(self.encode(x, y).mean, y)

    @torch.no_grad()
    def kinds(self) -> tuple[Distribution, Distribution]:
        """q(z|x) of some image, and p(z): for whoever asks of what kind they are."""
        features = next(self.parameters()).new_zeros(1, self.posterior.features)
        return self.posterior(features), self.latent_prior(features.new_zeros(1, dtype=torch.long))

    def _run(self, network: nn.Module, value: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None or not self.classes, "a conditional model needs labels"
        arguments = (value, y) if self.classes else (value,)
        if self.precision is torch.float32:
            return network(*arguments)
        with torch.autocast(value.device.type, dtype=self.precision):
            return network(*arguments).float()
