"""Sources of latent vectors to decode."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.distributions import Distribution

from vae_cli import noise
from vae_cli.constraints import show
from vae_cli.data import Split
from vae_cli.data.batches import pixels
from vae_cli.distributions import FullNormal, Mixture
from vae_cli.errors import ConfigError, DataError, counted
from vae_cli.evaluation.latent_codes import draws
from vae_cli.models import Model

CHUNK = 64  # vectors drawn together; always all of them, since a product's rounding depends on its size
FITTED = 20_000  # most training codes that a mixture is fitted to


class Sampler:
    """Latent vectors from the prior, p(z) or p(z|y).

    Args:
        model: a trained model.
        seed: vector number i is a function of it and of i alone.
        temperature: scales the spread of z around the prior's mean; of a hierarchy it may be a list with one for each
            level, from z1 on.

    Raises:
        ConfigError: for another number of temperatures.
    """

    def __init__(self, model: Model, seed: int, temperature: float | list[float] = 1.0) -> None:
        self.model, self.seed, self.temperature = model, seed, temperature
        self.device = next(model.parameters()).device
        names = list(model.level_sizes)
        if isinstance(temperature, list) and len(temperature) != len(names):
            one_each = "" if model.is_flat else f", or a list with one for each level from z1 to {names[-1]}"
            raise ConfigError(
                f"temperature={show(temperature)}: this model has {counted(len(names), 'level')} of latent variables; "
                f"give one number{one_each}"
            )

    @torch.no_grad()
    def chunk(self, start: int, y: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        """Return the CHUNK vectors from number `start` on, for CHUNK labels of a conditional model."""
        return self.model.sample_latents(self.prior_noise(start), self.temperature, y)

    def prior_noise(self, start: int) -> Float[Tensor, "n e"]:
        """Return the base noise of the CHUNK vectors from number `start` on, at a temperature of 1."""
        return self._noise(start, self.model.prior_noise_dim)

    def _noise(self, start: int, dim: int, place: str = "samples") -> Tensor:
        return noise.by_image(CHUNK, 1, dim, self.seed, place, start=start)[0].to(self.device)


class AggregateSampler(Sampler):
    """Latent vectors from the aggregate posterior, (1/N) Σ_i q(z|x_i) over the training images; of a conditional model
    over those that have the label.

    Args:
        model: a trained model.
        seed: as of `Sampler`.
        train: the training images.
    """

    def __init__(self, model: Model, seed: int, train: Split) -> None:
        super().__init__(model, seed)
        self.train = train
        self.rows = _rows_by_label(train, model.classes)

    @torch.no_grad()
    def chunk(self, start: int, y: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        drawn = self._noise(start, 1 + self.model.noise_dim, "aggregate")
        uniform = torch.special.ndtr(drawn[:, 0].double()).cpu()
        chosen = []
        for label, u in zip([0] * CHUNK if y is None else y.tolist(), uniform):
            rows = _rows_of(self.rows, label)
            chosen.append(rows[min(int(u * len(rows)), len(rows) - 1)])
        stream = noise.generator(self.seed, "aggregate pixels", start, device=self.device)
        x = pixels(self.train, torch.stack(chosen).to(self.train.images.device), self.device, stream)
        z, _ = self.model.encode(x, y).rsample_and_log_prob(drawn[None, :, 1:])
        return z[0]


class PointSampler(Sampler):
    """One latent vector that is given, again and again.

    Args:
        model: a trained model.
        z: the vector.

    Raises:
        ConfigError: if it is not of the model's latent space.
    """

    def __init__(self, model: Model, z: Sequence[float]) -> None:
        super().__init__(model, seed=0)
        dim = model.latent_dim
        if len(z) != dim:
            raise ConfigError(f"z has {len(z)} number(s), and the model's latent space {dim} dimension(s); give {dim}")
        self.z = torch.tensor(z, device=self.device, dtype=torch.float32)

    @torch.no_grad()
    def chunk(self, start: int, y: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        return self.z.expand(CHUNK, -1)


class MixtureSampler(Sampler):
    """Latent vectors from a mixture of normals with full covariances, fitted by scikit-learn to one draw of q(z|x) for
    each of 20,000 training images at most; of a conditional model one mixture for each label.

    Args:
        model: a trained model.
        seed: as of `Sampler`; the fit depends on it too.
        train: the training images.
        components: how many normals.
    """

    def __init__(self, model: Model, seed: int, train: Split, components: int = 10) -> None:
        super().__init__(model, seed)
        assert model.is_flat, "a hierarchy has several latent vectors"
        self.components = components
        fitted = train.spread(FITTED)
        self.codes, self.rows = draws(model, fitted, seed), _rows_by_label(fitted, model.classes)
        self.mixtures: dict[int, Mixture] = {}

    @torch.no_grad()
    def chunk(self, start: int, y: Int[Tensor, "n"] | None = None) -> Float[Tensor, "n d"]:
        drawn = self._noise(start, 1 + self.codes.shape[1], "mixture").cpu()
        labels = torch.zeros(CHUNK, dtype=torch.long) if y is None else y.cpu()
        z = torch.empty(CHUNK, self.codes.shape[1])
        for label in labels.unique().tolist():
            if label not in self.mixtures:
                self.mixtures[label] = self._fit(self.codes[_rows_of(self.rows, label)])
            z[labels == label] = self.mixtures[label].rsample_and_log_prob(drawn[labels == label])[0]
        return z.to(self.device)

    def _fit(self, codes: Tensor) -> Mixture:
        from sklearn.mixture import GaussianMixture

        if len(codes) < max(2, self.components):
            raise ConfigError(
                f"components={self.components}: there are {len(codes)} training codes to fit them to; choose fewer"
            )
        state = noise.key(self.seed, "fit") % 2**32
        fitted = GaussianMixture(self.components, random_state=state).fit(codes.double().numpy())
        parameters = (fitted.means_, fitted.covariances_, fitted.weights_)
        loc, covariance, weights = (torch.from_numpy(values).double() for values in parameters)
        scale_tril = torch.linalg.cholesky(covariance)
        return Mixture(FullNormal(loc.float(), scale_tril.float()), weights.log().float())


def _rows_by_label(train: Split, classes: int) -> dict[int, Tensor]:
    """Return the indices of the examples of each label; of all examples under 0 if the model takes no labels."""
    if not classes:
        return {0: torch.arange(len(train))}
    assert train.labels is not None
    labels = train.labels.cpu()
    return {int(y): (labels == y).nonzero().flatten() for y in labels.unique()}


def _rows_of(rows: dict[int, Tensor], label: int) -> Tensor:
    if label not in rows:
        raise DataError(f"no training image has the label {label}; choose another, or sampler=prior")
    return rows[label]


def class_labels(classes: int, count: int, label: int | str | None = None) -> Tensor | None:
    """Return labels (count,) to generate: the same for all, or every class in turn; None for a model without labels.

    Raises:
        ConfigError: for a label where the model has none.
    """
    if not classes:
        if label is not None:
            raise ConfigError(f"label={label}: this model knows no labels; train one with conditional=true")
        return None
    if label in (None, "all"):
        return torch.arange(count) % classes
    assert isinstance(label, int) and label < classes
    return torch.full((count,), label)


@torch.no_grad()
def generate_images(sampler: Sampler, count: int, draw_x: bool = False, y: Tensor | None = None) -> Iterator[Tensor]:
    """Yield generated examples in chunks (≤ CHUNK, *shape) on the CPU: the image of p(x|z), or a draw from it.

    Example number i is the same for every `count`. `y` (count,) are the labels, of a conditional model.
    """
    for start in range(0, count, CHUNK):
        chosen = None if y is None else pad_labels(y[start : start + CHUNK]).to(sampler.device)
        p = sampler.model.decode(sampler.chunk(start, chosen), chosen)
        values = draw_pixels(p, sampler.device, sampler.seed, start) if draw_x else sampler.model.likelihood.image(p)
        yield values[: count - start].cpu()


def draw_pixels(p: Distribution, device: torch.device, seed: int, *place: noise.Place) -> Tensor:
    """Return a draw from p(x|z), a function of the seed and the place."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):  # samplers take no generator
        torch.manual_seed(noise.key(seed, "pixels", *place))
        return p.sample()


def pad_labels(y: Tensor) -> Tensor:
    """Return CHUNK labels, with the last one repeated."""
    return torch.cat([y, y[-1:].expand(CHUNK - len(y))])
