"""A linear-Gaussian hierarchy of two levels, whose log p(x) and p(z|x) have closed forms.

    z2 ~ N(0, I),   z1 | z2 ~ N(A z2, s² I),   x | z ~ N(W1 z1 + W2 z2 + b, σ² I)

The columns of W1, W2 and A are orthogonal, so that p(z2|x) and p(z1|z2, x) have diagonal covariances and the model's
own posteriors can be exact.
"""

import torch
from torch import nn
from torch.distributions import MultivariateNormal

from vae_cli.distributions import NormalLikelihood, StandardNormalPrior
from vae_cli.models import Hierarchy

SHAPE, D1, D2, SIGMA, S = (1, 2, 4), 3, 2, 0.5, 0.7


class Part(nn.Module):
    """The sum of linear maps of its arguments."""

    def __init__(self, out, *inputs):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, out, bias=number == 0) for number, width in enumerate(inputs))

    def forward(self, *arguments):
        return sum(layer(argument) for layer, argument in zip(self.maps, arguments))


class Block(nn.Module):
    """A level whose state below is the state above and its z, side by side."""

    def __init__(self, above, dim, is_top, is_relative):
        super().__init__()
        self.latent_dim, self.is_relative, self.enter = dim, is_relative and not is_top, nn.Identity()
        self.prior = None if is_top else Part(2 * dim, above)
        self.posterior = Part(2 * dim, above, 8)

    def forward(self, h, z):
        return torch.cat([h.expand(len(z), -1), z], dim=1)


class Encoder(nn.Module):
    def forward(self, x):
        return x.flatten(1), x.flatten(1)


class Decoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.output = nn.Linear(1 + D2 + D1, 8)

    def forward(self, h):
        return self.output(h).unflatten(-1, SHAPE)

    def start_at(self, output):
        self.output.bias.data.copy_(output.flatten())


def linear_hierarchy(is_relative=False):
    """Return the model with random q; nothing is trained."""
    torch.manual_seed(3)
    likelihood = NormalLikelihood(SHAPE, scale=SIGMA)
    blocks = [Block(1 + D2, D1, False, is_relative), Block(1, D2, True, is_relative)]
    model = Hierarchy(Encoder(), blocks, Decoder(), StandardNormalPrior(D2), likelihood, SHAPE, 1).double()
    axes = torch.linalg.qr(torch.randn(8, 8, dtype=torch.float64))[0]
    with torch.no_grad():
        model.decoder.output.weight.copy_(
            torch.cat([torch.zeros(8, 1).double(), 0.8 * axes[:, :D2], 1.3 * axes[:, D2 : D2 + D1]], dim=1)
        )
        prior = model.blocks[0].prior.maps[0]
        prior.weight.zero_()
        prior.weight[:D1, 1:] = 0.9 * torch.linalg.qr(torch.randn(D1, D2, dtype=torch.float64))[0]
        prior.bias.zero_()
        model.blocks[0].posterior.maps[0].weight[D1:] = 0  # a scale that does not depend on z2, so that z is linear
        prior.bias[D1:] = torch.tensor(S, dtype=torch.float64).log()
    return model


def parameters(model):
    """A, W1, W2, b and σ as the model holds them."""
    weight, b = model.decoder.output.weight.detach(), model.decoder.output.bias.detach()
    a = model.blocks[0].prior.maps[0].weight.detach()[:D1, 1:]
    return a, weight[:, 1 + D2 :], weight[:, 1 : 1 + D2], b, model.likelihood.log_scale.exp()


def exact(model, x):
    """log p(x), p(z|x) over [z1, z2], by the algebra of one joint normal distribution."""
    a, w1, w2, b, sigma = parameters(model)
    eye = torch.eye(D2, dtype=torch.float64)
    covariance = torch.cat(
        [torch.cat([a @ a.T + S**2 * torch.eye(D1).double(), a], 1), torch.cat([a.T, eye], 1)]
    )  # of z
    w = torch.cat([w1, w2], dim=1)
    log_p_x = MultivariateNormal(b, w @ covariance @ w.T + sigma**2 * torch.eye(8).double()).log_prob(x.flatten(1))
    posterior = torch.linalg.inv(torch.linalg.inv(covariance) + w.T @ w / sigma**2)
    return log_p_x, MultivariateNormal((x.flatten(1) - b) @ w @ posterior / sigma**2, posterior)


def made_exact(model):
    """Let the posteriors be the true ones: p(z2|x), and p(z1|z2, x)."""
    a, w1, w2, b, sigma = parameters(model)
    eye = torch.eye(8, dtype=torch.float64)
    top, below = model.blocks[1].posterior.maps, model.blocks[0].posterior.maps
    slope = w1 @ a + w2
    inverse = torch.linalg.inv(S**2 * w1 @ w1.T + sigma**2 * eye)
    covariance = torch.linalg.inv(torch.eye(D2).double() + slope.T @ inverse @ slope)
    gain = covariance @ slope.T @ inverse  # the mean of z2 is gain (x − b)
    precision = torch.eye(D1).double() / S**2 + w1.T @ w1 / sigma**2
    spread = torch.linalg.inv(precision)  # of z1 given z2
    with torch.no_grad():
        for layer in (*top, *below):
            layer.weight.zero_()
        top[1].weight[:D2] = gain
        top[0].bias.copy_(torch.cat([-gain @ b, 0.5 * covariance.diagonal().log()]))
        below[1].weight[:D1] = spread @ w1.T / sigma**2
        below[0].weight[:D1, 1:] = spread @ (a / S**2 - w1.T @ w2 / sigma**2)
        below[0].bias.copy_(torch.cat([-spread @ w1.T @ b / sigma**2, 0.5 * spread.diagonal().log()]))
    return model
