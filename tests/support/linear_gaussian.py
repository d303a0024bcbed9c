"""A linear-Gaussian model, whose log p(x) and p(z|x) have closed forms."""

import torch
from torch.distributions import MultivariateNormal

from vae_cli.distributions import (
    NormalLikelihood,
    StandardNormalPrior,
)
from vae_cli.models.vae import VAE
from vae_cli.networks import MLPDecoder, MLPEncoder

SHAPE, D, SIGMA = (1, 3, 4), 3, 0.4


def linear_gaussian(posterior_class):
    """x = W z + b + σ ε with random q: nothing is trained."""
    torch.manual_seed(1)
    posterior, likelihood = posterior_class(D), NormalLikelihood(SHAPE, scale=SIGMA)
    encoder = MLPEncoder(SHAPE, posterior.features, hidden=[])
    decoder = MLPDecoder(D, SHAPE, hidden=[])
    return VAE(encoder, decoder, posterior, StandardNormalPrior(D), likelihood).double()


def exact(model, x):
    """log p(x) and p(z|x) by Gaussian algebra (Bishop 2006, equations 2.113 to 2.117)."""
    w, b = model.decoder.output.weight.detach(), model.decoder.output.bias.detach()
    # σ passes through the model's float32 buffer; take the number that the model holds.
    sigma = model.likelihood.log_scale.exp()
    eye_x, eye_z = torch.eye(len(b), dtype=torch.float64), torch.eye(D, dtype=torch.float64)
    log_p_x = MultivariateNormal(b, w @ w.T + sigma**2 * eye_x).log_prob(x.flatten(1))
    covariance = torch.linalg.inv(eye_z + w.T @ w / sigma**2)
    mean = (x.flatten(1) - b) @ w @ covariance / sigma**2
    return log_p_x, MultivariateNormal(mean, covariance)


def made_exact(model, x):
    """Let the encoder give the true posterior of a linear-Gaussian model: its mean is linear in x."""
    _, true = exact(model, x)
    w, b = model.decoder.output.weight.detach(), model.decoder.output.bias.detach()
    sigma = model.likelihood.log_scale.exp()
    covariance = true.covariance_matrix[0]
    linear = covariance @ w.T / sigma**2
    factor = torch.linalg.cholesky(covariance)
    below = torch.cat([factor[i, :i] for i in range(D)])
    with torch.no_grad():
        model.encoder.output.weight.zero_()
        model.encoder.output.weight[:D] = linear
        model.encoder.output.bias.copy_(torch.cat([-linear @ b, factor.diagonal().log(), below]))
    return model
