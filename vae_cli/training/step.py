"""The parts of one step of the optimizer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from vae_cli.errors import TrainingError

PATIENCE = 20  # steps in a row that may be skipped before the run fails


def gradient_norm(gradients: Sequence[Tensor]) -> Tensor:
    """Return the Euclidean norm of all gradients together."""
    if gradients[0].device.type != "cpu":
        return torch.nn.utils.get_total_norm(gradients)
    # On a CPU this takes a third of the time of the norm of norms.
    flat = [gradient.flatten() for gradient in gradients]
    return torch.stack([torch.dot(gradient, gradient) for gradient in flat]).sum().sqrt()


def is_finite(value: Tensor, norm: Tensor, most: float | None = None) -> bool | Tensor:
    """Return whether a scalar is finite and a norm at most so large: as a bool on a CPU, as a tensor on a GPU, which is
    not waited for."""
    if value.device.type == "cpu":
        return math.isfinite(value) and (most is None or float(norm) <= most)
    return value.isfinite() if most is None else value.isfinite() & (norm <= most)


def step_if_finite(
    optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor], finite: bool | Tensor, is_exact: bool = True
) -> None:
    """Step along the gradients if all is finite, and clear them.

    Args:
        optimizer: of the parameters.
        parameters: whose gradients are cleared.
        finite: as `is_finite` gives it.
        is_exact: a step that is skipped on a GPU changes nothing at all; else it is one along zeros, with what momentum
            is left, which takes less time and memory.
    """
    if isinstance(finite, Tensor):
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.masked_fill_(~finite, 0)
    if isinstance(finite, Tensor) and is_exact:
        _step_where(finite, optimizer, parameters)
    elif finite is not False:
        optimizer.step()
    for parameter in parameters:
        parameter.grad = None


@torch.no_grad()
def _step_where(finite: Tensor, optimizer: torch.optim.Optimizer, parameters: Sequence[Tensor]) -> None:
    """Step along the gradients, and undo it on the device, which is not waited for, if not all is finite."""
    state = [value for values in optimizer.state.values() for value in values.values() if isinstance(value, Tensor)]
    # Some of torch's optimizers count their steps on the CPU.
    changed = [*parameters, *(each for each in state if each.is_floating_point() and each.device == finite.device)]
    before = torch._foreach_mul(changed, (~finite).float())
    optimizer.step()
    torch._foreach_mul_(changed, finite.float())
    torch._foreach_add_(changed, before)


class SkippedSteps:
    """Counts, on the device, the steps whose loss or gradient was not finite or too large."""

    def __init__(self, device: torch.device) -> None:
        self.total, self.streak, self.longest = torch.zeros(3, dtype=torch.int64, device=device).unbind()

    def record(self, finite: Tensor | bool) -> None:
        if finite is True and not self.streak:
            return
        skipped = torch.as_tensor(finite, device=self.streak.device).logical_not().long()
        self.total += skipped
        self.streak.add_(skipped).mul_(skipped)
        torch.maximum(self.longest, self.streak, out=self.longest)

    def check(self, step: int, most: float | None = None) -> None:
        """Raise a TrainingError if too many steps in a row were skipped. This waits for the device.

        Args:
            step: the number of the last one.
            most: the norm of the gradient above which steps are skipped.
        """
        if int(self.longest) >= PATIENCE:
            above = "" if most is None else f", or its norm above skip_grad_norm={most:g},"
            larger = "" if most is None else "a larger skip_grad_norm, "
            raise TrainingError(
                f"the loss or its gradient was not finite{above} {PATIENCE} steps in a row, up to step {step}: try "
                f"{larger}a smaller optimizer.lr, clip_grad_norm=100 or precision=float32; the last checkpoint has the "
                "last good weights"
            )
