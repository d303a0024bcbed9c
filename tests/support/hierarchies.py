"""Small hierarchies whose levels all do something, without a training."""

import torch

from vae_cli.distributions import BernoulliLikelihood, MixtureOfNormalsPrior, StandardNormalPrior, VampPrior
from vae_cli.models import Ladder, TopDown

X = (1, 4, 4)
MODELS = {
    "ladder": lambda prior: Ladder([3, 2, 2], [6, 5, 4], X, prior, BernoulliLikelihood(X), activation="tanh"),
    "ladder_absolute": lambda prior: Ladder([3, 2], [6, 5], X, prior, BernoulliLikelihood(X), relative=False),
    "top_down": lambda prior: TopDown([1, 2], [3, 4], [2, 2], X, prior, BernoulliLikelihood(X), activation="tanh"),
    "sizes_without_levels": lambda prior: TopDown(
        [1, 2, 1, 2], [2, 3, 3, 4], [0, 1, 0, 1], (1, 16, 16), prior, BernoulliLikelihood((1, 16, 16))
    ),
    "full_size": lambda prior: TopDown([1, 1, 2], [2, 3, 4], [1, 1, 1], X, prior, BernoulliLikelihood(X), stem=1),
}
PRIORS = {
    "standard": StandardNormalPrior,
    "mixture": lambda dim: MixtureOfNormalsPrior(dim, 3),
    "vampprior": lambda dim: VampPrior(dim, X, 3),
}
CONDITIONAL = {
    "ladder": lambda: Ladder([3, 2], [6, 5], X, StandardNormalPrior, BernoulliLikelihood(X), classes=3),
    "top_down": lambda: TopDown([1, 2], [3, 4], [2, 2], X, StandardNormalPrior, BernoulliLikelihood(X), classes=3),
}


def shaken(model):
    """Return a model whose weights that start at zero are random too."""
    torch.manual_seed(5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def small_hierarchy(name="ladder", prior="standard"):
    """Return one of the models above in float64."""
    torch.manual_seed(0)
    return shaken(MODELS[name](PRIORS[prior])).double()
