"""Networks that tests name by their path."""

import torch
from torch import nn


class DropoutEncoder(nn.Module):
    """An encoder that draws from torch's own stream."""

    def __init__(self, shape, out_features):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.LazyLinear(out_features))
        self.layers(torch.zeros(1, *shape))

    def forward(self, x):
        return self.layers(x)
