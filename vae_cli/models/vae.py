"""The variational autoencoder with one layer of latent variables."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions import (
    LatentDistribution,
    Likelihood,
    Posterior,
    Prior,
    analytic_kl,
    as_latent,
)
from vae_cli.models.base import Model
from vae_cli.models.evidence import Evidence, Level
from vae_cli.models.preprocessing import Preprocessing


class VAE(Model):
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
        preprocessing: of examples that are no images.
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
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(precision, classes, preprocessing)
        self.encoder, self.decoder = encoder, decoder
        self.posterior, self.prior, self.likelihood = posterior, prior, likelihood

    @property
    def level_sizes(self) -> dict[str, int]:
        return {"z": self.prior.latent_dim}

    @property
    def noise_dim(self) -> int:
        return self.posterior.noise_dim

    def features(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> tuple[Float[Tensor, "b f"]]:
        return (self._labeled(self.encoder, self._seen(x), y),)

    def posterior_of(self, features: tuple[Tensor, ...], y: Tensor | None = None) -> LatentDistribution:
        return as_latent(self.posterior(*features))

    @property
    def has_analytic_kl(self) -> bool:
        return analytic_kl(*self.example_distributions()) is not None

    def decode(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Distribution:
        batch = z.shape[:-1]
        output = self._labeled(self.decoder, z.flatten(0, -2), None if y is None else y.expand(batch).flatten())
        return self._likelihood(output.unflatten(0, batch))

    def evidence(
        self,
        x: Float[Tensor, "b *shape"],
        noise: Float[Tensor, "k b e"],
        y: Tensor | None = None,
        through: Callable[[Tensor], Tensor] | None = None,
        posterior: LatentDistribution | None = None,
        prior: LatentDistribution | None = None,
    ) -> Evidence:
        posterior = self.encode(x, y) if posterior is None else posterior
        prior = self.latent_prior(y) if prior is None else prior
        z, log_q = posterior.rsample_and_log_prob(noise)
        z = z if through is None else through(z)
        likelihood, log_p = self.decode(z, y), prior.log_prob(z)
        level = Level("z", z, log_p, log_q, posterior, prior)
        return Evidence(z, likelihood.log_prob(x), log_p, log_q, posterior, prior, likelihood, (level,))

    def sample_latents(
        self, noise: Float[Tensor, "n e"], temperature: float | list[float] = 1.0, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        spread = temperature[0] if isinstance(temperature, list) else temperature
        return self.latent_prior(y).rsample_and_log_prob(self.prior.tempered(noise, spread))[0]

    def start_at(self, output: Tensor) -> bool:
        start_at = getattr(self.decoder, "start_at", None)
        if callable(start_at):
            start_at(output)
        return callable(start_at)

    def example_features(self) -> tuple[Tensor]:
        return (next(self.parameters()).new_zeros(1, self.posterior.features),)

    def _labeled(self, network: nn.Module, value: Tensor, y: Tensor | None) -> Tensor:
        y = self._checked_labels(y)
        output = self._run(network, value) if y is None else self._run(network, value, y)
        return output if self.precision is torch.float32 else output.float()
