"""The variational autoencoder: q(z|x), p(z) and p(x|z) in one module that never draws and never averages."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions import LatentDistribution, Likelihood, Posterior, Prior, as_latent
from vae_cli.models.evidence import Evidence


class VAE(nn.Module):
    """A variational autoencoder with one layer of latent variables.

        log p(x) = ELBO(x) + KL(q(z|x) ‖ p(z|x)),   ELBO(x) = E_q[log p(x|z)] − KL(q(z|x) ‖ p(z))

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014.

    Args:
        encoder: examples (N, *shape) → features (N, posterior.features).
        decoder: latent vectors (N, D) → (N, *likelihood.output_shape).
        posterior: features → q(z|x).
        prior: p(z).
        likelihood: the decoder's output → p(x|z).
        precision: the type in which encoder and decoder multiply; densities keep the weights' type.
        classes: number of labels y that it is conditioned on: q(z|x, y), p(x|z, y) and, where the prior is made of
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
        """Base normals that one draw of z from q(z|x) takes."""
        return self.posterior.noise_dim

    def encode(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> LatentDistribution:
        """Return q(z|x), of batch shape (B,)."""
        return as_latent(self.posterior(self.features(x, y)))

    def features(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> Float[Tensor, "b f"]:
        """Return the encoder's output, which the posterior turns into q(z|x)."""
        return self._run(self.encoder, x, y)

    def latent_prior(self, y: Tensor | None = None) -> LatentDistribution:
        """Return p(z); or, of a conditional model whose prior depends on labels, p(z|y) of batch shape (N,)."""
        return as_latent(self.prior(self.encode, y if self.classes else None))

    def decode(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Distribution:
        """Return p(x|z), of batch shape (*batch,)."""
        batch = z.shape[:-1]
        output = self._run(self.decoder, z.flatten(0, -2), None if y is None else y.expand(batch).flatten())
        return self.likelihood(output.unflatten(0, batch))

    def image(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Float[Tensor, "*batch_shape"]:
        """Return the example that stands for p(x|z) where one is shown: its mean, or what its likelihood names."""
        return self.likelihood.image(self.decode(z, y))

    def evidence(
        self,
        x: Float[Tensor, "b *shape"],
        noise: Float[Tensor, "k b e"],
        y: Tensor | None = None,
        through: Callable[[Tensor], Tensor] | None = None,
        posterior: LatentDistribution | None = None,
        prior: LatentDistribution | None = None,
    ) -> Evidence:
        """Return the terms of the bounds for the draws z that q(z|x) makes of base noise ε ~ N(0, I).

        Args:
            x: examples.
            noise: ε.
            y: labels, of a conditional model.
            through: a function that z passes before anything is made of it; an objective may change z's gradient there.
            posterior: q(z|x), if it is known already.
            prior: p(z), if it is known already.
        """
        posterior = self.encode(x, y) if posterior is None else posterior
        prior = self.latent_prior(y) if prior is None else prior
        z, log_q = posterior.rsample_and_log_prob(noise)
        z = z if through is None else through(z)
        likelihood = self.decode(z, y)
        return Evidence(z, likelihood.log_prob(x), prior.log_prob(z), log_q, posterior, prior, likelihood)

    def sample(self, noise: Float[Tensor, "n e"], temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """Return p(x|z), of batch shape (N,), for z from the prior."""
        return self.decode(self.sample_latents(noise, temperature, y), y)

    def sample_latents(
        self, noise: Float[Tensor, "n e"], temperature: float = 1.0, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        """Return z from the prior, spread more or less by `temperature`."""
        z, _ = self.latent_prior(y).rsample_and_log_prob(self.prior.tempered(noise, temperature))
        return z

    def reconstruct(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> Distribution:
        """Return p(x|z) at the mean of q(z|x), of batch shape (B,)."""
        return self.decode(self.encode(x, y).mean, y)

    @torch.no_grad()
    def example_distributions(self) -> tuple[LatentDistribution, LatentDistribution]:
        """Return q(z|x) for features of zeros, and p(z), to see what they provide."""
        features = next(self.parameters()).new_zeros(1, self.posterior.features)
        return as_latent(self.posterior(features)), self.latent_prior(features.new_zeros(1, dtype=torch.long))

    def _run(self, network: nn.Module, value: Tensor, y: Tensor | None) -> Tensor:
        assert y is not None or not self.classes, "a conditional model needs labels"
        arguments = (value, y) if self.classes else (value,)
        if self.precision is torch.float32:
            return network(*arguments)
        with torch.autocast(value.device.type, dtype=self.precision):
            return network(*arguments).float()
