"""Schedules of the learning rate and of weights: pure functions of the step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

from torch import Tensor

from vae_cli.constraints import Described, Fraction, NonNegative, Range

Number = float | Tensor  # a scalar tensor as an input of compiled code


def ramp(step: Number, steps: float) -> Number:
    """Rise linearly from 0 at step 0 to 1 at step `steps`, and stay at 1."""
    return _at_most_1(step / steps) if steps > 0 else 1.0


def cycle(step: Number, steps: float) -> Number:
    """Rise from 0 to 1 over the first half of every `steps` steps, and stay at 1 over the second."""
    return _at_most_1(2 * (step % steps) / steps) if steps > 0 else 1.0


def _at_most_1(share: Number) -> Number:
    return share.clamp(max=1.0) if isinstance(share, Tensor) else min(1.0, share)


# (step, length of the schedule in steps) → the factor on a weight
WEIGHTS: dict[str, Callable[[Number, float], Number]] = {
    "constant": lambda step, steps: 1.0,
    "linear": ramp,
    "cyclical": cycle,
}


Milestones = Annotated[
    Sequence[Annotated[float, Range(0, 1, open_low=True, open_high=True)]],
    Described("a list of fractions of the training, each between 0 and 1"),
]


class Schedule(ABC):
    """The factor on the learning rate at a step.

    Args:
        warmup_epochs: epochs over which the factor first rises linearly from 1/steps to 1.
        steps_per_epoch: steps in an epoch.
        total_steps: steps in the training.
    """

    def __init__(self, warmup_epochs: NonNegative = 0, steps_per_epoch: int = 1, total_steps: int = 1) -> None:
        self.warmup_steps = warmup_epochs * steps_per_epoch
        self.total_steps = total_steps

    def __call__(self, step: int) -> float:
        """Return the factor for the step that follows `step` steps."""
        warm = float(ramp(step + 1, self.warmup_steps))
        decaying = max(1.0, self.total_steps - self.warmup_steps)
        progress = (step - self.warmup_steps) / decaying
        return warm * self.decay(min(1.0, max(0.0, progress)))

    @abstractmethod
    def decay(self, progress: float) -> float:
        """Return the factor after `progress`, a fraction of the steps after the warm-up."""


class Constant(Schedule):
    """A constant rate."""

    def decay(self, progress: float) -> float:
        return 1.0


class Cosine(Schedule):
    """Half a cosine from 1 to `final`.

    I. Loshchilov and F. Hutter, SGDR, 2017.
    """

    def __init__(
        self, warmup_epochs: NonNegative = 0, final: Fraction = 0.0, steps_per_epoch: int = 1, total_steps: int = 1
    ) -> None:
        super().__init__(warmup_epochs, steps_per_epoch, total_steps)
        self.final = final

    def decay(self, progress: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


class Exponential(Schedule):
    """`final` to the power of the progress: exponential decay from 1 to `final`."""

    def __init__(
        self, warmup_epochs: NonNegative = 0, final: Fraction = 0.01, steps_per_epoch: int = 1, total_steps: int = 1
    ) -> None:
        super().__init__(warmup_epochs, steps_per_epoch, total_steps)
        self.final = final

    def decay(self, progress: float) -> float:
        return self.final**progress


class MultiStep(Schedule):
    """Multiplied by `gamma` at each of the milestones, which are fractions of the training."""

    def __init__(
        self,
        warmup_epochs: NonNegative = 0,
        milestones: Milestones = (0.5, 0.75),
        gamma: Annotated[float, Range(0, 1, open_low=True)] = 0.1,
        steps_per_epoch: int = 1,
        total_steps: int = 1,
    ) -> None:
        super().__init__(warmup_epochs, steps_per_epoch, total_steps)
        self.milestones, self.gamma = milestones, gamma

    def decay(self, progress: float) -> float:
        return self.gamma ** sum(progress >= milestone for milestone in self.milestones)
