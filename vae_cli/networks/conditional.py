"""Labels for networks that take none."""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import embedding, one_hot

from vae_cli.networks.layers import Shape


class LabeledEncoder(nn.Module):
    """Examples (N, *shape) and labels (N,) → features: the network sees one channel more, trained for each class.

    K. Sohn, H. Lee and X. Yan, Learning Structured Output Representation using Deep Conditional Generative Models,
    2015.

    Args:
        network: (N, C + 1, …) → features.
        shape: (C, …), of an example.
        classes: number of labels.
    """

    def __init__(self, network: nn.Module, shape: Shape, classes: int) -> None:
        super().__init__()
        self.network = network
        self.size = (1, *shape[1:])
        self.label_images = nn.Parameter(0.1 * torch.randn(classes, math.prod(self.size)))

    def forward(self, x: Float[Tensor, "n *shape"], y: Int[Tensor, "n"]) -> Any:
        return self.network(torch.cat([x, embedding(y, self.label_images).unflatten(-1, self.size)], dim=1))


class LabeledDecoder(nn.Module):
    """Latent vectors (N, D) and labels (N,) → likelihood parameters: the network sees `classes` numbers more, the
    label's among them 1 and the others 0.

    Args:
        network: (N, D + classes) → likelihood parameters.
        classes: number of labels.
    """

    def __init__(self, network: nn.Module, classes: int) -> None:
        super().__init__()
        self.network, self.classes = network, classes

    def forward(self, z: Float[Tensor, "n d"], y: Int[Tensor, "n"]) -> Tensor:
        return self.network(torch.cat([z, one_hot(y, self.classes).to(z)], dim=1))

    @property
    def start_at(self) -> Any:
        """The network's own `start_at`, None without one."""
        return getattr(self.network, "start_at", None)
