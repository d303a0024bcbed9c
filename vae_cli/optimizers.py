"""Optimizers beyond those of torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from vae_cli.constraints import BelowOne, Betas, NonNegative
from vae_cli.errors import ConfigError
from vae_cli.system.precision import has_bfloat16

# The optimizers that torch has a fused version of, by the kind of device.
FUSED: dict[str, tuple[type, ...]] = {
    "cpu": (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD, torch.optim.Adagrad),
    "cuda": (torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD),
}


def adam(params: Iterable[Tensor], lr: float = 1e-3, betas: Sequence[float] = (0.9, 0.999)) -> torch.optim.Adam:
    """Return Adam over the parameters that have gradients, fused where torch has such a version for their device."""
    parameters = [parameter for parameter in params if parameter.requires_grad]
    first, second = betas
    has_fused = torch.optim.Adam in FUSED.get(parameters[0].device.type, ())
    return torch.optim.Adam(parameters, lr, (first, second), fused=has_fused or None)


class Muon(torch.optim.Optimizer):
    """Muon for the weights of linear layers and convolutions, Adam for every other parameter.

    The momentum of a matrix's gradient is made orthogonal before the step, so that all directions are learned at the
    same rate. The steps are scaled to the size of Adam's, so that one learning rate serves both. The weights of a
    convolution (out, in, height, width) are one matrix (out, in · height · width). The iteration is that of torch, in
    bfloat16; on a device without instructions for it, where that takes many times as long, in float32.

    K. Jordan et al., Muon: An optimizer for hidden layers in neural networks, 2024; J. Liu et al., Muon is Scalable
    for LLM Training, 2025 (the scale).

    Args:
        params: the parameters.
        matrices: the parameters whose steps are made orthogonal; with None all of two dimensions or more.
        lr: the learning rate.
        momentum: of the matrices' gradients.
        weight_decay: decoupled, of the matrices.
        betas: of Adam.
        eps: of Adam.

    Raises:
        ConfigError: if torch has no Muon.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        matrices: Iterable[Tensor] | None = None,
        lr: NonNegative = 1e-2,
        momentum: BelowOne = 0.95,
        weight_decay: NonNegative = 0.0,
        betas: Betas = (0.9, 0.999),
        eps: NonNegative = 1e-8,
    ) -> None:
        if not hasattr(torch.optim, "Muon"):
            raise ConfigError(f"optimizer=muon needs torch 2.9 or newer, this is {torch.__version__}")
        parameters = list(params)
        chosen = {id(p) for p in (parameters if matrices is None else matrices) if p.ndim >= 2}
        weights = [p for p in parameters if id(p) in chosen]
        orthogonal = [p if p.ndim == 2 else torch.nn.Parameter(p.detach().flatten(1)) for p in weights]
        self._views = [(weight, matrix) for weight, matrix in zip(weights, orthogonal) if weight is not matrix]
        others = [p for p in parameters if id(p) not in chosen]
        first, second = betas
        self._parts: list[torch.optim.Optimizer] = []
        self._in_float32: torch.optim.Optimizer | None = None  # the part that torch would be slow at
        if orthogonal:
            own = torch.optim.Muon(orthogonal, lr, weight_decay, momentum, adjust_lr_fn="match_rms_adamw")
            self._parts.append(own)
            self._in_float32 = None if has_bfloat16(orthogonal[0].device) else own
        if others:
            fused = others[0].device.type in ("cpu", "cuda")
            self._parts.append(torch.optim.Adam(others, lr=lr, betas=(first, second), eps=eps, fused=fused))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Share the parameter groups and the state with the parts."""
        for part, group in zip(self._parts, self.param_groups):
            part.param_groups, part.state = [group], self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self._share()

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for weight, matrix in self._views:  # of which an average of the weights may have changed the memory
            matrix.data = weight.data.flatten(1)
            matrix.grad = None if weight.grad is None else weight.grad.flatten(1)
        for part in self._parts:
            if part is self._in_float32:
                _step_along_orthogonal(part)
            else:
                part.step()
        return loss


def _step_along_orthogonal(optimizer: torch.optim.Optimizer) -> None:
    """Step as `torch.optim.Muon` does, with its state, but with the products in the type of the weights."""
    for group in optimizer.param_groups:
        momentum, rate = group["momentum"], float(group["lr"])
        for matrix in (p for p in group["params"] if p.grad is not None):
            state = optimizer.state[matrix]
            if "momentum_buffer" not in state:
                state["momentum_buffer"] = torch.zeros_like(matrix.grad)
            buffer = state["momentum_buffer"].lerp_(matrix.grad, 1 - momentum)
            update = matrix.grad.lerp(buffer, momentum)
            update = _orthogonal(update, group["ns_coefficients"], group["ns_steps"], group["eps"])
            matrix.mul_(1 - rate * group["weight_decay"])
            matrix.add_(update, alpha=-rate * 0.2 * max(matrix.shape) ** 0.5)


def _orthogonal(matrix: Tensor, coefficients: Sequence[float], steps: int, eps: float) -> Tensor:
    """Return about U Vᵀ of the singular value decomposition U S Vᵀ, by X ← a X + (b X Xᵀ + c (X Xᵀ)²) X."""
    a, b, c = coefficients
    x = matrix / matrix.norm().clamp(min=eps)
    x = x.T if len(x) > x.shape[1] else x
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if x.shape == matrix.shape else x.T
