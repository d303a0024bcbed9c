"""Models with random weights, as `vae_cli.build.trained.load` returns them."""

import torch

from tests.support.training import settings
from vae_cli.build import parts
from vae_cli.build.trained import Trained


def untrained(*overrides):
    """Return a model of digits whose weights are random, all of them: no network starts as a constant."""
    config = settings("threads=1", *overrides)
    data = parts.dataset(config).splits()
    config = parts.with_choices(config, data.facts)
    torch.manual_seed(0)
    model = parts.model(config, data.facts).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(0, 0.1)
    return Trained(model, data.facts, config, {"step": 7})
