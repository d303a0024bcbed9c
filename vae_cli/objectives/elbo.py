"""The evidence lower bound."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from vae_cli.data.batches import Batch
from vae_cli.distributions import analytic_kl
from vae_cli.errors import ConfigError
from vae_cli.model import VAE, Evidence
from vae_cli.objectives.base import Bound, Objective
from vae_cli.schedules import ramp

KL_CHOICES = ("auto", "analytic", "monte_carlo")


class ELBO(Objective):
    r"""ELBO(x) = (1/K) Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)),   z_k ~ q(z|x)

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014. With `beta` the loss is
    −(reconstruction − β KL): I. Higgins et al., β-VAE, 2017; with `warmup_epochs` β grows linearly from 0:
    C. K. Sønderby et al., Ladder Variational Autoencoders, 2016.

    Args:
        kl: `analytic`; `monte_carlo`, the mean of log q(z_k|x) − log p(z_k); or `auto`, the former where a closed
            form exists.
        beta: weight of the KL in the loss.
        warmup_epochs: epochs over which the weight grows from 0 to `beta`.
        mc_samples: K.
        steps_per_epoch: steps in an epoch.

    Raises:
        ConfigError: for an unknown `kl`.
    """

    def __init__(
        self,
        kl: str = "auto",
        beta: float = 1.0,
        warmup_epochs: float = 0,
        mc_samples: int = 1,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        if kl not in KL_CHOICES:
            raise ConfigError(f"objective.kl={kl} is none of {', '.join(KL_CHOICES)}")
        self.kl, self.beta = kl, beta
        self.warmup_steps = warmup_epochs * steps_per_epoch

    def check(self, model: VAE) -> None:
        if self.kl != "analytic":
            return
        parameter = next(model.parameters())
        q = model.posterior(parameter.new_zeros(1, model.posterior.features))
        if analytic_kl(q, model.prior(model.infer)) is None:
            names = f"posterior={_name(model.posterior)} and prior={_name(model.prior)}"
            raise ConfigError(f"objective.kl=analytic: no closed form for {names}; use auto or monte_carlo")

    def __call__(self, model: VAE, batch: Batch, noise: Float[Tensor, "k b e"], step: int) -> Bound:
        x, y = batch
        evidence = model.evidence(x, noise, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        kl = self._divergence(evidence)
        elbo = reconstruction - kl
        weight = self.beta * ramp(step, self.warmup_steps)
        loss = -(elbo if weight == 1 else reconstruction - weight * kl).mean()
        return Bound(loss, elbo, elbo, {"reconstruction": reconstruction, "kl": kl})

    def _divergence(self, evidence: Evidence) -> Float[Tensor, "b"]:
        if self.kl != "monte_carlo":
            closed = analytic_kl(evidence.posterior, evidence.prior)
            if closed is not None:
                return closed
        return (evidence.log_q_z_given_x - evidence.log_p_z).mean(0)


def _name(module: nn.Module) -> str:
    return type(module).__name__
