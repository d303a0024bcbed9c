"""Distributions over the rows of a table, whose columns are of several kinds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Bernoulli, Distribution, Independent, constraints

from vae_cli.distributions.count_likelihoods import (
    CountLikelihood,
    NegativeBinomialLikelihood,
    PoissonLikelihood,
    ZeroInflatedNegativeBinomialLikelihood,
)
from vae_cli.distributions.likelihoods import (
    LaplaceLikelihood,
    Likelihood,
    NormalLikelihood,
    Scale,
    ScaledLikelihood,
    StudentTLikelihood,
)

REAL: dict[str, type[ScaledLikelihood]] = {
    "normal": NormalLikelihood,
    "laplace": LaplaceLikelihood,
    "student_t": StudentTLikelihood,
}
COUNTS: dict[str, type[CountLikelihood]] = {
    "poisson": PoissonLikelihood,
    "negative_binomial": NegativeBinomialLikelihood,
    "zero_inflated_negative_binomial": ZeroInflatedNegativeBinomialLikelihood,
}
RARE = 1e-3  # the least share of a category at the start


class OneHot(Distribution):
    """Categories as vectors with one 1, several beside each other; the log-probability of a category stands at its 1.

    Args:
        logits: (*batch, Σ K), of blocks of K categories.
        sizes: K of each block.
    """

    arg_constraints = {"logits": constraints.real}
    support = constraints.boolean

    def __init__(self, logits: Tensor, sizes: Sequence[int]) -> None:
        self.sizes = list(sizes)
        self.log_p = torch.cat([block.log_softmax(-1) for block in logits.split(self.sizes, -1)], -1)
        super().__init__(logits.shape, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        return value * self.log_p

    @property
    def mean(self) -> Tensor:
        return self.log_p.exp()

    @property
    def variance(self) -> Tensor:
        return self.mean * (1 - self.mean)

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        blocks = []
        for log_p in self.log_p.expand(self._extended_shape(torch.Size(sample_shape))).split(self.sizes, -1):
            number = torch.distributions.Categorical(logits=log_p, validate_args=False).sample()
            blocks.append(nn.functional.one_hot(number, log_p.shape[-1]).to(log_p))
        return torch.cat(blocks, -1)


class Together(Distribution):
    """Independent values, of which some have one distribution and some another.

    Args:
        parts: distributions of independent values, (*batch, D_k).
        places: where the parts' values stand in the vector, one part after the other.
        order: the inverse: where each value of the vector stands among them.
    """

    arg_constraints: dict[str, constraints.Constraint] = {}
    support = constraints.real

    def __init__(self, parts: Sequence[Distribution], places: Tensor, order: Tensor) -> None:
        self.parts, self.places, self.order = list(parts), places, order
        self.sizes = [part.batch_shape[-1] for part in parts]
        super().__init__(torch.Size([*parts[0].batch_shape[:-1], sum(self.sizes)]), validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        values = value[..., self.places].split(self.sizes, -1)
        return self._in_order([part.log_prob(own) for part, own in zip(self.parts, values)])

    @property
    def mean(self) -> Tensor:
        return self._in_order([part.mean for part in self.parts])

    @property
    def variance(self) -> Tensor:
        return self._in_order([part.variance for part in self.parts])

    @torch.no_grad()
    def sample(self, sample_shape: torch.Size | list[int] | tuple[int, ...] = ()) -> Tensor:
        return self._in_order([part.sample(torch.Size(sample_shape)) for part in self.parts])

    def _in_order(self, values: list[Tensor]) -> Tensor:
        return torch.cat(values, -1)[..., self.order]


class MixedLikelihood(Likelihood):
    """p(x|z) = Π_i p_i(x_i|z) over the columns of a table, each by its kind: real columns, counts, Bernoulli variables
    of binary ones, and categories.

    Args:
        shape: (D,).
        kinds: of each value of the vector: `real`, `counts`, `binary` or `categorical`.
        categories: K of each block of categories, in the order of the vector.
        real: of real columns.
        scale: of these, as of `NormalLikelihood`; `per_position` is one for each column.
        counts: of counts, with a dispersion for each column.
    """

    supports = frozenset({"mixed"})
    places: Tensor
    order: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        kinds: Sequence[str],
        categories: Sequence[int],
        real: Literal["normal", "laplace", "student_t"] = "normal",
        scale: Scale = "per_position",
        counts: Literal["poisson", "negative_binomial", "zero_inflated_negative_binomial"] = "negative_binomial",
    ) -> None:
        super().__init__(shape)
        by_kind = {kind: [n for n, each in enumerate(kinds) if each == kind] for kind in dict.fromkeys(kinds)}
        self.kinds = list(by_kind)
        self.sizes = [len(place) for place in by_kind.values()]
        self.categories = list(categories)
        heads: dict[str, nn.Module] = {}
        if "real" in by_kind:
            heads["real"] = REAL[real]((len(by_kind["real"]),), scale)
        if "counts" in by_kind:
            heads["counts"] = COUNTS[counts]((len(by_kind["counts"]),))
        self.heads = nn.ModuleDict(heads)
        self.discrete = "real" not in by_kind  # type: ignore[misc]
        places = np.concatenate([np.asarray(place) for place in by_kind.values()])
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.register_buffer("order", torch.tensor(places.argsort()), persistent=False)

    @property
    def output_shape(self) -> tuple[int, ...]:
        return (sum(self._outputs),)

    @property
    def _outputs(self) -> list[int]:
        heads = {kind: head.output_shape[0] for kind, head in self.heads.items() if isinstance(head, Likelihood)}
        return [heads.get(kind, size) for kind, size in zip(self.kinds, self.sizes)]

    def forward(self, output: Tensor) -> Independent:
        parts = [self._part(kind, own) for kind, own in zip(self.kinds, output.split(self._outputs, -1))]
        return self.independent(Together(parts, self.places, self.order))

    def _part(self, kind: str, output: Tensor) -> Distribution:
        if kind in self.heads:
            p = self.heads[kind](output)
            assert isinstance(p, Independent)
            return p.base_dist
        if kind == "categorical":
            return OneHot(output, self.categories)
        return Bernoulli(logits=output, validate_args=False)

    def start_at(self, mean: Float[Tensor, "d"], std: Float[Tensor, "d"]) -> Float[Tensor, "o"]:
        outputs = []
        means, stds = (values[self.places].split(self.sizes) for values in (mean, std))
        for kind, own_mean, own_std in zip(self.kinds, means, stds):
            if kind in self.heads:
                outputs.append(self.heads[kind].start_at(own_mean, own_std))  # type: ignore[operator]
            elif kind == "categorical":
                outputs.append(own_mean.clamp(min=RARE).log())
            else:
                outputs.append(torch.logit(own_mean.clamp(RARE, 1 - RARE)))
        return torch.cat(outputs)
