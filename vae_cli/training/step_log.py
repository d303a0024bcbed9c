"""Numbers of single steps for the loggers: kept on the device, and read from it together."""

from __future__ import annotations

import torch
from torch import Tensor

from vae_cli.objectives import Sums
from vae_cli.runs.directory import StepRecord

MOST_STEPS = 500  # of a training, about, that are recorded
TOGETHER = 50  # steps that are read from the device at once


class StepLog:
    """The means over a batch of one step out of every few, of about 500 steps in a training.

    Args:
        total_steps: of the training.
    """

    def __init__(self, total_steps: int) -> None:
        self.interval = max(1, total_steps // MOST_STEPS)
        self._names: list[str] = []
        self._kept: list[tuple[int, int, Tensor, dict[str, float]]] = []

    def is_due(self, step: int) -> bool:
        """Return whether a step is one to record."""
        return step % self.interval == 0

    def record(self, step: int, epoch: int, sums: Sums, norm: Tensor, settings: dict[str, float]) -> None:
        """Keep a step's numbers on the device.

        Args:
            step: steps done.
            epoch: epochs done, with the present one.
            sums: over the batch.
            norm: of the gradient.
            settings: what schedules say.
        """
        self._names = [*sums.names, "gradient_norm"]
        values = torch.cat([sums.values / sums.images, norm.detach().reshape(1)])
        self._kept.append((step, epoch, values, settings))

    def take(self, least: int = TOGETHER) -> list[StepRecord]:
        """Return the steps that were kept since the last time, if there are so many. This waits for the device."""
        if not self._kept or len(self._kept) < least:
            return []
        kept, self._kept = self._kept, []
        numbers = torch.stack([values for _, _, values, _ in kept]).tolist()
        return [
            (step, epoch, dict(zip(self._names, values)) | settings)
            for (step, epoch, _, settings), values in zip(kept, numbers)
        ]
