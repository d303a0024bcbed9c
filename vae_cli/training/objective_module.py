"""The module that an objective trains beside the model, such as a discriminator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vae_cli.objectives import Objective
from vae_cli.runs.tensor_file import mismatch
from vae_cli.training import optimizer_state
from vae_cli.training.step import gradient_norm


class ObjectiveModule:
    """An objective's own module with its optimizer, and its weights at the best epoch, which the model's go with.

    Args:
        objective: that has one.
        device: to move it to.
    """

    def __init__(self, objective: Objective, device: torch.device) -> None:
        assert objective.module is not None
        self.module = objective.module.to(device).train()
        self.parameters = [parameter for parameter in self.module.parameters() if parameter.requires_grad]
        self.optimizer = objective.module_optimizer()
        self.best: dict[str, Tensor] | None = None

    @property
    def buffers(self) -> list[Tensor]:
        return list(self.module.buffers())

    def weights(self) -> dict[str, Tensor]:
        return self.module.state_dict()

    def gradient_norm(self) -> Tensor | float:
        """Return the Euclidean norm of the module's gradients, 0 where there are none."""
        gradients = [parameter.grad for parameter in self.parameters if parameter.grad is not None]
        return gradient_norm(gradients) if gradients else 0.0

    def keep_best(self) -> None:
        """Keep the weights as those of the best epoch."""
        self.best = {name: value.detach().clone() for name, value in self.weights().items()}

    def return_to_best(self) -> None:
        """Take the weights of the best epoch, if they were kept."""
        if self.best is not None:
            self.module.load_state_dict(self.best)

    # Checkpoints

    def contents(self) -> dict[str, Any]:
        """Return what a checkpoint holds of it."""
        return {"weights": self.weights(), "optimizer": self.optimizer.state_dict(), "best": self.best}

    def restore(self, contents: Mapping[str, Any] | None) -> None:
        """Go back to what `contents` holds.

        Raises:
            ValueError, KeyError, IndexError: if it is not of such a module.
        """
        if contents is None:
            raise ValueError("the weights of the objective's module are missing")
        for weights in (contents["weights"], contents["best"] or contents["weights"]):
            if (odd := mismatch(weights, self.module)) is not None:
                raise ValueError(f"{odd[0]} of the objective's module does not go with its config")
        self.module.load_state_dict(contents["weights"])
        optimizer_state.restore(self.optimizer, contents["optimizer"])
        best, here = contents["best"], self.weights()
        self.best = None if best is None else {name: value.to(here[name], copy=True) for name, value in best.items()}
