"""Weights of the Inception network that were never trained."""

import torch
from torch import nn


def random_weights():
    """Return a state dict with the names and shapes of the real one."""
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Untrained(FeatureExtractorInceptionV3):
        def load_state_dict(self, *_, **__):
            pass

    torch.manual_seed(0)
    loaded, torch.load = torch.load, lambda *_, **__: {}
    try:
        network = Untrained("inception-v3-compat", ["2048"], "no file")
    finally:
        torch.load = loaded
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_var.uniform_(0.05, 0.1)  # so that features of different images differ
            module.running_mean.normal_(0, 0.1)
    return dict(network.state_dict())
