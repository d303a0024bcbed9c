"""Coupling flows whose halves are known before the tracing: zuko finds them by values, which no tracer follows."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn
from zuko.flows.coupling import GeneralCouplingTransform
from zuko.transforms import CouplingTransform


class _Halves(CouplingTransform):
    """A coupling with the indices of its two halves given."""

    def __init__(self, meta: Any, idx_a: Tensor, idx_b: Tensor) -> None:
        super(CouplingTransform, self).__init__()
        self.meta, self.idx_a, self.idx_b = meta, idx_a, idx_b


class _Coupling(GeneralCouplingTransform):
    """A coupling layer that keeps these indices."""

    def forward(self, c: Tensor | None = None) -> _Halves:
        return _Halves(partial(self.meta, c), self.idx_a, self.idx_b)


def fix_halves(model: nn.Module) -> None:
    """Let every coupling in a model keep the indices of its halves."""
    for layer in model.modules():
        if type(layer) is GeneralCouplingTransform:
            mask: Any = layer.mask
            layer.register_buffer("idx_a", mask.nonzero().squeeze(-1))
            layer.register_buffer("idx_b", (~mask).nonzero().squeeze(-1))
            layer.__class__ = _Coupling
