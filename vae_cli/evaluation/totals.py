"""Running sums of what an objective reports, kept on the device until somebody asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vae_cli.distributed.processes import Processes
from vae_cli.objectives import Bound


@dataclass(frozen=True)
class Summed:
    """A batch's bound, summed up.

    Args:
        loss: a scalar to minimize.
        names: of what is reported; the loss is the last.
        sums: over the images, (S,), without gradients.
        images: how many.
    """

    loss: Tensor
    names: list[str]
    sums: Tensor
    images: int


def summed(bound: Bound) -> Summed:
    """Sum up what a batch's bound reports."""
    size = len(bound.elbo)
    values = [term.expand(size) for term in (bound.elbo, bound.bound, *bound.terms.values(), bound.loss)]
    names = ["elbo", "bound", *bound.terms, "loss"]
    return Summed(bound.loss, names, torch.stack(values).detach().sum(1), size)


class Totals:
    """Sums over images of `elbo`, `bound`, `loss` and the terms of every batch that was added.

    Adding costs no synchronization with the device; `means` does. Sums are float64 where the device has it.
    """

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(0, device=device, dtype=self.dtype)
        self.images = torch.zeros((), device=device, dtype=torch.int64)

    def add(self, bound: Bound, finite: Tensor | bool = True) -> None:
        """Take a batch in, unless `finite`, perhaps a scalar on the device, is false."""
        found = summed(bound)
        self.take(found.names, found.sums, found.images, finite)

    def take(self, names: list[str], sums: Tensor, images: int, finite: Tensor | bool = True) -> None:
        """Take in what was `summed` over so many images, unless `finite` is false."""
        if not self.names:
            self.names = names
            self.sums = self.sums.new_zeros(len(self.names))
        if isinstance(finite, Tensor):
            self.sums += torch.where(finite, sums, 0)
            self.images += finite * images
        elif finite:
            self.sums += sums
            self.images += images

    def pool(self, processes: Processes) -> None:
        """Make these the sums of all processes, each of which has taken something in."""
        processes.total(self.sums)
        processes.total(self.images)

    def means(self) -> dict[str, float]:
        """Means over the images taken in, by name; nothing if there were none."""
        count = int(self.images)
        if count == 0:
            return {}
        return dict(zip(self.names, (self.sums / count).tolist()))

    def state_dict(self) -> dict[str, Any]:
        return {"names": self.names, "sums": self.sums.cpu(), "images": int(self.images)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.names = list(state["names"])
        self.sums = state["sums"].to(self.sums)
        self.images.fill_(state["images"])
