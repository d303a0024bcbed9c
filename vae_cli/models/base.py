"""The contract of a model: q(z|x), p(z) and p(x|z) in one module that never draws and never averages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions import LatentDistribution, Likelihood, Prior, as_latent
from vae_cli.distributions.observed import Observed
from vae_cli.models.evidence import Evidence
from vae_cli.models.preprocessing import Preprocessing


class Model(nn.Module, ABC):
    """A variational autoencoder: a bound on log p(x) from q(z|x), p(z) and p(x|z).

    A latent vector z (D,) holds the latent variables of all levels one after the other, from z1, the nearest to the
    data, to the top.

    Attributes:
        is_flat: whether q(z|x) and p(z) are distributions of one vector; a model that is not flat is a `Hierarchy`.
        prior: of the top level, the only one of a flat model.
        likelihood: the decoder's output → p(x|z).
        precision: the type in which networks multiply; densities keep the weights' type.
        classes: number of labels y that it is conditioned on; 0 if it sees none.
        preprocessing: of examples that are no images; None for images.
    """

    is_flat: ClassVar[bool] = True
    prior: Prior
    likelihood: Likelihood

    def __init__(self, precision: torch.dtype, classes: int, preprocessing: Preprocessing | None = None) -> None:
        super().__init__()
        self.precision, self.classes, self.preprocessing = precision, classes, preprocessing

    @property
    @abstractmethod
    def level_sizes(self) -> dict[str, int]:
        """The dimensions of each level by its name, in the order of z."""

    @property
    def latent_dim(self) -> int:
        """D, the dimensions of z."""
        return sum(self.level_sizes.values())

    @property
    @abstractmethod
    def noise_dim(self) -> int:
        """Base normals that one draw of z from q(z|x) takes."""

    @property
    def prior_noise_dim(self) -> int:
        """Base normals that one draw of z from p(z) takes."""
        return self.latent_dim - self.prior.latent_dim + self.prior.noise_dim

    @property
    def dimension_names(self) -> list[str]:
        """A name for each dimension of z: z0, z1 …; of several levels z1[0], z1[1] …"""
        if self.is_flat:
            return [f"z{number}" for number in range(self.latent_dim)]
        return [f"{level}[{number}]" for level, size in self.level_sizes.items() for number in range(size)]

    @property
    def features_per_example(self) -> int:
        """Numbers that `features` gives for one example."""
        return sum(each.numel() for each in self.example_features())

    def split(self, z: Shaped[Tensor, "*batch e"]) -> tuple[Tensor, ...]:
        """Return the levels of z, or their base noise; the top may have more numbers of it than dimensions."""
        below = list(self.level_sizes.values())[:-1]
        return z.split([*below, z.shape[-1] - sum(below)], dim=-1)

    @abstractmethod
    def features(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> tuple[Tensor, ...]:
        """Return the encoder's output, tensors of B rows."""

    @abstractmethod
    def posterior_of(self, features: tuple[Tensor, ...], y: Tensor | None = None) -> LatentDistribution:
        """Return q(z|x) of what `features` gives, of batch shape (B,)."""

    def encode(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> LatentDistribution:
        """Return q(z|x), of batch shape (B,)."""
        return self.posterior_of(self.features(x, y), y)

    def encode_top(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> LatentDistribution:
        """Return q(z_L|x) of the top level, of batch shape (B,)."""
        return self.encode(x, y)

    def latent_prior(self, y: Tensor | None = None) -> LatentDistribution:
        """Return p(z); or, of a conditional model whose prior depends on labels, p(z|y) of batch shape (N,)."""
        return self.top_prior(y)

    def top_prior(self, y: Tensor | None = None) -> LatentDistribution:
        """Return p(z_L) of the top level; or, where it depends on labels, p(z_L|y) of batch shape (N,)."""
        return as_latent(self.prior(self._encode_seen, y if self.classes else None))

    @property
    @abstractmethod
    def has_analytic_kl(self) -> bool:
        """Whether the KL of every level has a closed form."""

    @abstractmethod
    def decode(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Distribution:
        """Return p(x|z), of batch shape (*batch,)."""

    @abstractmethod
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

    @abstractmethod
    def start_at(self, output: Tensor) -> bool:
        """Set the decoder's output bias, so that the mean output starts there; return whether it can be set."""

    def image(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Float[Tensor, "*batch_shape"]:
        """Return the example that stands for p(x|z) where one is shown: its mean, or what its likelihood names."""
        return self.likelihood.image(self.decode(z, y))

    def sample(self, noise: Float[Tensor, "n e"], temperature: float = 1.0, y: Tensor | None = None) -> Distribution:
        """Return p(x|z), of batch shape (N,), for z from the prior."""
        return self.decode(self.sample_latents(noise, temperature, y), y)

    @abstractmethod
    def sample_latents(
        self, noise: Float[Tensor, "n e"], temperature: float | list[float] = 1.0, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        """Return z from the prior, spread more or less by `temperature`, one for all levels or one for each."""

    def reconstruct(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> Distribution:
        """Return p(x|z) at the mean of q(z|x), of batch shape (B,)."""
        return self.decode_for(x, self.encode(x, y).mean, y)

    def decode_for(
        self, x: Float[Tensor, "b *shape"], z: Float[Tensor, "b d"], y: Tensor | None = None
    ) -> Distribution:
        """Return p(x|z) of examples of which something is taken as known, such as the total of counts."""
        p = self.decode(z, y)
        return p.given(x) if isinstance(p, Observed) else p

    @torch.no_grad()
    def example_distributions(self) -> tuple[LatentDistribution, LatentDistribution]:
        """Return q(z|x) for features of zeros, and p(z), to see what they provide."""
        weight = next(self.parameters())
        y = torch.zeros(1, dtype=torch.long, device=weight.device) if self.classes else None
        return self.posterior_of(self.example_features(), y), self.latent_prior(y)

    @abstractmethod
    def example_features(self) -> tuple[Tensor, ...]:
        """Return features of zeros of one example."""

    def _encode_seen(self, u: Float[Tensor, "b *shape"], y: Tensor | None = None) -> LatentDistribution:
        """Return q(z_L|x) of examples as the encoder sees them."""
        return self.encode_top(u if self.preprocessing is None else self.preprocessing.inverse(u), y)

    def _seen(self, x: Float[Tensor, "b *shape"]) -> Tensor:
        """Return examples as the encoder sees them."""
        return x if self.preprocessing is None else self.preprocessing(x)

    def _likelihood(self, output: Tensor) -> Distribution:
        """Return p(x|z) of the decoder's output, in the data's units."""
        p: Distribution = self.likelihood(output)
        return p if self.preprocessing is None else self.preprocessing.in_data_units(p)

    def _checked_labels(self, y: Tensor | None) -> Tensor | None:
        """Return the labels that the model is conditioned on, None if it sees none."""
        assert y is not None or not self.classes, "a conditional model needs labels"
        return y if self.classes else None

    def _run(self, network: nn.Module, *arguments: Tensor) -> Any:
        """Return a network's output, computed in the model's precision."""
        if self.precision is torch.float32:
            return network(*arguments)
        with torch.autocast(arguments[0].device.type, dtype=self.precision):
            return network(*arguments)
