"""The interface between the training loop and an objective."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call

from vae_cli.data.batches import Batch
from vae_cli.models import Evidence, Model
from vae_cli.optimizers import adam

ENOUGH_CODES = 64  # to be compared with each other


@dataclass(frozen=True)
class Sums:
    """Sums over a batch of what is reported, without gradients.

    Args:
        names: `elbo`, `bound`, the terms' and, last, `loss`.
        values: (S,), one for each name.
        images: number of examples in the batch.
    """

    names: list[str]
    values: Float[Tensor, "s"]
    images: int


@dataclass(frozen=True)
class Bound:
    """The bound on a batch of B examples, in nats per example.

    Args:
        loss: a scalar to minimize over the model's parameters.
        bound: (B,), L_K for importance-weighted objectives, else the ELBO.
        elbo: (B,), the evidence lower bound, the mean over the draws, unweighted whatever shapes the loss.
        terms: named (B,) tensors or scalars, `reconstruction` and `kl` among them.
        module_loss: a scalar to minimize over the parameters of the objective's own module. The two losses share one
            backward pass: this one is made of the model's tensors detached, and `loss` of the module `frozen`.
    """

    loss: Float[Tensor, ""]
    bound: Float[Tensor, "b"]
    elbo: Float[Tensor, "b"]
    terms: dict[str, Tensor] = field(default_factory=dict)
    module_loss: Float[Tensor, ""] | None = None

    def sums(self) -> Sums:
        """Return the sums over the batch; a scalar counts for each example."""
        size = len(self.elbo)
        values = [value.expand(size) for value in (self.elbo, self.bound, *self.terms.values(), self.loss)]
        return Sums(["elbo", "bound", *self.terms, "loss"], torch.stack(values).detach().sum(1), size)


def level_terms(evidence: Evidence, divergences: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the KL of each level by its name, `kl_z1` …, where there are several."""
    if len(evidence.levels) == 1:
        return {}
    return {f"kl_{level.name}": kl for level, kl in zip(evidence.levels, divergences)}


def frozen(module: nn.Module) -> Callable[..., Any]:
    """Return the function that a module computes, with constant parameters: gradients reach its inputs alone."""
    constants = {name: parameter.detach() for name, parameter in module.named_parameters()}
    return lambda *inputs: functional_call(module, constants, inputs)


class IncompatibleError(Exception):
    """The options of some groups do not go together.

    Args:
        reason: a clause that says why.
        groups: the groups, or `group.key`.
    """

    def __init__(self, reason: str, *groups: str) -> None:
        super().__init__(reason)
        self.reason, self.groups = reason, groups


class Objective(ABC):
    """A map from a model and a batch to a `Bound`.

    Args:
        mc_samples: K, the draws of z per example.

    Attributes:
        smallest_batch: the fewest examples that `batch_size=auto` chooses. An objective that compares the codes of a
            batch with each other needs `ENOUGH_CODES`.
        module: the module of an objective that has parameters of its own, made by its constructor. A training steps
            along the gradient of `Bound.module_loss` with `module_optimizer`, saves both and goes on with them.
    """

    smallest_batch: ClassVar[int] = 4
    module: nn.Module | None = None

    def __init__(self, mc_samples: int = 1) -> None:
        self.mc_samples = mc_samples

    def scheduled(self, step: int) -> dict[str, float]:
        """Return the weights and targets of the loss at a step of the training by their names, for curves."""
        return {}

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        """The validation number that chooses the best weights: `loss` where its optimum is not the bound's."""
        return "bound"

    def is_settled(self, step: int) -> bool:
        """Return whether no schedule of the objective's own is still moving after so many steps."""
        return True

    def may_select(self, step: int) -> bool:
        """Return whether the weights after so many steps may be the best ones."""
        return self.is_settled(step)

    @property
    def couples_batch(self) -> str | None:
        """The reason why the loss of a batch is not the mean of its examples' own losses, so that a batch cannot be
        divided among processes; None if it is."""
        return None

    def noise_dim(self, model: Model) -> int:
        """Return the number of base normals per draw and example."""
        return model.noise_dim

    def module_optimizer(self) -> torch.optim.Optimizer:
        """Return an optimizer of the module's parameters; Adam with its usual settings, if a class has no other."""
        assert self.module is not None
        return adam(self.module.parameters())

    def check(self, model: Model) -> None:
        """Refuse a model that this objective is not defined for.

        Raises:
            IncompatibleError: with the groups whose options do not go together.
        """

    def need_flat(self, model: Model) -> None:
        """Refuse a hierarchy of latent variables.

        Raises:
            IncompatibleError: if the model is one.
        """
        if not model.is_flat:
            raise IncompatibleError("it needs one latent vector, and a hierarchy has several", "objective", "model")

    @abstractmethod
    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        """Return the bound on a batch `(x, y)` with base noise for K draws.

        Args:
            step: of the training: a number, or with `compile=true` a scalar tensor. Schedules follow it in training;
                a model in evaluation mode is judged at their final values.
        """
