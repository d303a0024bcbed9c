"""Running sums of what an objective reports, kept on the device until they are read."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vae_cli.distributed import collectives
from vae_cli.objectives import Sums


class Totals:
    """Sums over examples of `elbo`, `bound`, `loss` and the terms of every batch that was added.

    Adding costs no synchronization with the device; `means` does. Sums are float64 where the device has it.
    """

    def __init__(self, device: torch.device) -> None:
        self.names: list[str] = []
        self.dtype = torch.float32 if device.type == "mps" else torch.float64
        self.sums = torch.zeros(0, device=device, dtype=self.dtype)
        self.images = torch.zeros((), device=device, dtype=torch.int64)

    def add(self, batch: Sums, finite: Tensor | bool = True) -> None:
        """Add the sums of a batch; not if `finite`, perhaps a scalar on the device, is false."""
        if not self.names:
            self.names = batch.names
            self.sums = self.sums.new_zeros(len(self.names))
        if isinstance(finite, Tensor):
            self.sums += torch.where(finite, batch.values, 0)
            self.images += finite * batch.images
        elif finite:
            self.sums += batch.values
            self.images += batch.images

    def all_reduce(self) -> None:
        """Add up the sums of all processes, each of which has added a batch."""
        collectives.all_reduce(self.sums)
        collectives.all_reduce(self.images)

    def means(self) -> dict[str, float]:
        """Return the means over the examples by name; nothing if there were none."""
        count = int(self.images)
        if count == 0:
            return {}
        return dict(zip(self.names, (self.sums / count).tolist()))

    def state_dict(self) -> dict[str, Any]:
        return {"names": self.names, "sums": self.sums.tolist(), "images": int(self.images)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.names = list(state["names"])
        self.sums = self.sums.new_tensor(state["sums"])
        self.images.fill_(state["images"])
