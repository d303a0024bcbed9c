"""Hierarchies of latent variables with top-down inference."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Distribution

from vae_cli.distributions import DiagonalNormal, LatentDistribution, Likelihood, Prior, analytic_kl
from vae_cli.distributions.levels import Size, normal, relative_normal
from vae_cli.errors import ConfigError
from vae_cli.models.base import Model
from vae_cli.models.evidence import Evidence, Level
from vae_cli.models.level_distributions import Choose, Features, HierarchicalPosterior, HierarchicalPrior, sum_of
from vae_cli.models.preprocessing import Preprocessing


class Hierarchy(Model):
    r"""A hierarchy of L levels of latent variables, inferred from the top down:

        p(x, z) = p(z_L) Π_l p(z_l | z_{>l}) p(x|z),   q(z|x) = q(z_L|x) Π_l q(z_l | z_{>l}, x)

    A state h goes from the top to the data, and each z_l is added to it. By h the normal prior and posterior of a level
    depend on the levels above; the posterior sees the encoder's features of x too. p(z_L) is any prior.

    C. K. Sønderby et al., Ladder Variational Autoencoders, 2016; A. Vahdat and J. Kautz, NVAE, 2020; R. Child, Very
    Deep VAEs Generalize Autoregressive Models, 2021.

    Args:
        encoder: examples (N, *shape) → the features of each level, from z1 on; with classes it takes labels too.
        blocks: of each level, from z1 on; see `TopDownBlock`.
        decoder: the state below z1 → (N, *likelihood.output_shape).
        prior: p(z_L).
        likelihood: the decoder's output → p(x|z).
        shape: of an example.
        width: of the state at the top.
        precision: as of `Model`.
        classes: as of `Model`; the state at the top is then one for each label.
        preprocessing: as of `Model`.
    """

    is_flat = False

    def __init__(
        self,
        encoder: nn.Module,
        blocks: Sequence[nn.Module],
        decoder: nn.Module,
        prior: Prior,
        likelihood: Likelihood,
        shape: tuple[int, ...],
        width: int,
        precision: torch.dtype = torch.float32,
        classes: int = 0,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__(precision, classes, preprocessing)
        self.encoder, self.blocks, self.decoder = encoder, nn.ModuleList(blocks), decoder
        self.prior, self.likelihood, self.shape = prior, likelihood, tuple(shape)
        self.start = nn.Parameter(torch.zeros(max(1, classes), width))

    @property
    def level_sizes(self) -> dict[str, int]:
        return {f"z{number}": block.latent_dim for number, block in enumerate(self._blocks, start=1)}

    @property
    def noise_dim(self) -> int:
        return self.latent_dim

    @property
    def _blocks(self) -> list[Any]:
        return list(self.blocks)

    # q(z|x)

    def features(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> Features:
        y, seen = self._checked_labels(y), self._seen(x)
        return self._run(self.encoder, seen) if y is None else self._run(self.encoder, seen, y)

    @torch.no_grad()
    def example_features(self) -> Features:
        weight = next(self.parameters())
        y = torch.zeros(1, dtype=torch.long, device=weight.device) if self.classes else None
        return tuple(torch.zeros_like(each) for each in self.features(weight.new_zeros(1, *self.shape), y))

    def posterior_of(self, features: Features, y: Tensor | None = None) -> HierarchicalPosterior:
        return HierarchicalPosterior(self, features, self._checked_labels(y))

    def encode_top(self, x: Float[Tensor, "b *shape"], y: Tensor | None = None) -> LatentDistribution:
        y, features = self._checked_labels(y), self.features(x, y)[-1]
        h = self.start if y is None else nn.functional.embedding(y, self.start)
        return normal(self._run(self._blocks[-1].posterior, h, features), features.shape[:1])

    # p(z) and p(x|z)

    def latent_prior(self, y: Tensor | None = None) -> HierarchicalPrior:
        return HierarchicalPrior(self, self.top_prior(y), self._checked_labels(y))

    @property
    def has_analytic_kl(self) -> bool:
        zeros = self.start.new_zeros(1, self.prior.latent_dim)
        y = torch.zeros(1, dtype=torch.long, device=zeros.device)
        return analytic_kl(DiagonalNormal(zeros, zeros), self.top_prior(y)) is not None

    def sample_latents(
        self, noise: Float[Tensor, "n e"], temperature: float | list[float] = 1.0, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        return self.latent_prior(y).rsample_and_log_prob(self.tempered(noise, temperature))[0]

    def tempered(self, noise: Float[Tensor, "*n e"], temperature: float | list[float]) -> Float[Tensor, "*n e"]:
        """Return base noise of the prior that spreads each level less or more around its mean."""
        spread = temperature if isinstance(temperature, list) else [temperature] * len(self.blocks)
        *below, top = self.split(noise)
        parts = [value * part for value, part in zip(spread, below)]
        return torch.cat([*parts, self.prior.tempered(top, spread[-1])], dim=-1)

    def complete(
        self, z: Float[Tensor, "n d"], kept: int, noise: Tensor | None = None, y: Tensor | None = None
    ) -> Float[Tensor, "n d"]:
        """Return z with all but its `kept` top levels from the prior, given those.

        Args:
            z: whose top levels are kept.
            kept: how many.
            noise: (N, D), of the other levels; with None they are at the prior's means.
            y: labels, of a conditional model.
        """
        y, levels = self._checked_labels(y), self.split(z.unsqueeze(0))
        drawn = None if noise is None else self.split(noise.unsqueeze(0))
        first_kept = len(self.blocks) - kept

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            if number >= first_kept:
                return levels[number]
            assert p is not None
            mean = p.mean.expand(levels[number].shape)
            return mean if drawn is None else p.rsample_and_log_prob(drawn[number])[0]

        top = self.top_prior(y) if not kept else None
        chosen, _ = self.run_levels(choose, 1, z.shape[0], y, top=top)
        return torch.cat(chosen, dim=-1).squeeze(0)

    def decode(self, z: Float[Tensor, "*batch d"], y: Tensor | None = None) -> Distribution:
        batch = z.shape[:-1]
        levels = self.split(z.reshape(1, -1, z.shape[-1]))
        labels = self._checked_labels(y)
        labels = None if labels is None else labels.expand(batch).flatten()
        _, h = self.run_levels(lambda number, q, p: levels[number], 1, math.prod(batch), labels, has_prior=False)
        return self._of_state(h, batch)

    def start_at(self, output: Tensor) -> bool:
        self.decoder.start_at(output)  # type: ignore[operator]
        return True

    # The bound

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
        assert isinstance(posterior, HierarchicalPosterior) and isinstance(prior, HierarchicalPrior)
        levels, h = self._infer(posterior, prior, noise, through)
        z = torch.cat([level.z for level in levels], dim=-1)
        likelihood = self._of_state(h, tuple(noise.shape[:2]))
        log_p, log_q = sum_of([level.log_p for level in levels]), sum_of([level.log_q for level in levels])
        return Evidence(z, likelihood.log_prob(x), log_p, log_q, posterior, prior, likelihood, tuple(levels))

    def _infer(
        self,
        posterior: HierarchicalPosterior,
        prior: HierarchicalPrior,
        noise: Float[Tensor, "k b e"],
        through: Callable[[Tensor], Tensor] | None = None,
    ) -> tuple[list[Level], Tensor]:
        """Return the levels at draws from q(z|x), and the state below z1."""
        drawn, passed = self.split(noise), None
        if through is not None:  # z is drawn first, and everything is made of what `through` gives
            passed = self.split(through(posterior.rsample_and_log_prob(noise)[0]))
        levels: list[Level] = []

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert q is not None and p is not None
            z, log_q = q.rsample_and_log_prob(drawn[number])
            if passed is not None:
                z, log_q = passed[number], q.log_prob(passed[number])
            levels.insert(0, Level(f"z{number + 1}", z, p.log_prob(z), log_q, q, p))
            return z

        _, h = self.run_levels(choose, noise.shape[0], noise.shape[1], posterior.y, posterior.features, prior.top)
        return levels, h

    def run_levels(
        self,
        choose: Choose,
        draws: Size,
        rows: Size,
        y: Tensor | None = None,
        features: Features | None = None,
        top: LatentDistribution | None = None,
        has_prior: bool = True,
    ) -> tuple[list[Tensor], Tensor]:
        """Run the blocks from the top to the data; return z_1 … z_L, (K, B, D_l), and the state below, of K B rows.

        Args:
            choose: gives each z_l.
            draws: K.
            rows: B.
            y: labels (B,).
            features: of B examples, for q(z_l | z_{>l}, x).
            top: p(z_L).
            has_prior: whether `choose` is given p(z_l | z_{>l}).
        """
        h = self.start if y is None else nn.functional.embedding(y, self.start)
        chosen: list[Tensor] = []
        for number in reversed(range(len(self.blocks))):
            block = self._blocks[number]
            h, p, q = self._run(block.enter, h), top, None
            batch = (draws, rows)
            if block.prior is not None and (has_prior or features is not None):
                p = normal(self._run(block.prior, h), batch)
            if features is not None:
                of_x = features[number] if block.prior is None else repeated(features[number], draws)
                q = normal(self._run(block.posterior, h, of_x), batch if block.prior is not None else (rows,))
                q = relative_normal(q, p) if block.is_relative and isinstance(p, DiagonalNormal) else q
            z = choose(number, q, p)
            h = h if y is None or chosen else repeated(h, draws)  # of the start's rows, one for each label
            h = self._run(block, h, z.flatten(0, 1))
            chosen.insert(0, z)
        return chosen, h

    def forward(self, features: Features, z: Tensor, y: Tensor | None = None) -> Tensor:
        """Return log q(z_l | z_{>l}, x) of each level, (L, K, B).

        It is what `torch.func.functional_call` runs where a frozen posterior needs it with detached parameters.
        """
        levels, log_q = self.split(z), list[Tensor]()

        def choose(number: int, q: DiagonalNormal | None, p: LatentDistribution | None) -> Tensor:
            assert q is not None
            log_q.insert(0, q.log_prob(levels[number]))
            return levels[number]

        self.run_levels(choose, z.shape[0], z.shape[1], y, features)
        return torch.stack(log_q)

    def _of_state(self, h: Tensor, batch: tuple[Size, ...]) -> Distribution:
        """Return p(x|z) by the state below z1."""
        output = self._run(self.decoder, h)
        output = output if self.precision is torch.float32 else output.float()
        return self._likelihood(output.unflatten(0, batch))


def need_hierarchy(model: Model, setting: str) -> Hierarchy:
    """Return a model as the hierarchy that a setting is about.

    Raises:
        ConfigError: naming the setting, if it has one level.
    """
    if model.is_flat:
        raise ConfigError(
            f"{setting}: this model has one level of latent variables, and {setting.partition('=')[0]} is of a "
            "hierarchy; leave it out, or train one with model=ladder or model=top_down"
        )
    assert isinstance(model, Hierarchy)
    return model


def repeated(value: Float[Tensor, "b *rest"], draws: Size) -> Float[Tensor, "kb *rest"]:
    """Return the rows of a batch once for each draw."""
    return value if draws == 1 else value.repeat(draws, *[1] * (value.dim() - 1))
