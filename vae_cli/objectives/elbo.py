"""The evidence lower bound and losses from its two terms."""

from __future__ import annotations

from typing import Literal

from jaxtyping import Float
from torch import Tensor

from vae_cli.constraints import NonNegative
from vae_cli.data.batches import Batch
from vae_cli.distributions import analytic_kl, kl_by_dimension
from vae_cli.errors import ConfigError
from vae_cli.models import VAE, Evidence
from vae_cli.objectives.base import Bound, IncompatibleError, Objective
from vae_cli.schedules import WEIGHTS


class ELBO(Objective):
    r"""ELBO(x) = (1/K) Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)),   z_k ~ q(z|x)

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014. The loss is −(reconstruction − β f(KL)), where
    f is the identity; or |KL − C|, with `capacity` C; or Σ_d max(λ, KL_d), with `free_bits` λ, where KL_d is a
    batch's mean in one dimension if posterior and prior factorize, else max(λ D, KL).

    I. Higgins et al., β-VAE, 2017. C. P. Burgess et al., Understanding disentangling in β-VAE, 2018. D. P. Kingma et
    al., Improving Variational Inference with Inverse Autoregressive Flow, 2016 (free bits). G. Roeder, Y. Wu and D.
    Duvenaud, Sticking the Landing, 2017. C. K. Sønderby et al., Ladder Variational Autoencoders, 2016, and H. Fu et
    al., Cyclical Annealing Schedule, 2019 (schedules of β).

    Args:
        kl: `analytic`; `monte_carlo`, the mean of log q(z_k|x) − log p(z_k); or `auto`, the former where a closed
            form exists and the estimator is not `stl`.
        estimator: `pathwise`; or `stl`, without the score of q(z|x), whose expectation is 0 and which is noise alone
            once q is exact.
        beta: β.
        beta_schedule: `constant`; `linear`, β grows from 0 over `warmup_epochs`; `cyclical`, it does so in the first
            half of every `warmup_epochs`. With `linear` and no `warmup_epochs` it is constant.
        warmup_epochs: epochs of the schedule; with `capacity` C grows linearly over them, and β is constant.
        free_bits: λ, nats per dimension.
        capacity: C, nats.
        mc_samples: K.
        steps_per_epoch: steps in an epoch.

    Raises:
        ConfigError: for two choices that exclude each other.
    """

    def __init__(
        self,
        kl: Literal["auto", "analytic", "monte_carlo"] = "auto",
        estimator: Literal["pathwise", "stl"] = "pathwise",
        beta: NonNegative = 1.0,
        beta_schedule: Literal["constant", "linear", "cyclical"] = "linear",
        warmup_epochs: NonNegative = 0,
        free_bits: NonNegative = 0.0,
        capacity: NonNegative | None = None,
        mc_samples: int = 1,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        if estimator == "stl" and kl == "analytic":
            raise ConfigError("objective.estimator=stl is of the Monte Carlo KL: use kl=auto or monte_carlo with it")
        if free_bits and capacity is not None:
            raise ConfigError("objective.free_bits and objective.capacity both reshape the KL: set one of them")
        self.kl = "monte_carlo" if estimator == "stl" else kl
        self.estimator, self.beta, self.free_bits, self.capacity = estimator, beta, free_bits, capacity
        self.weight = WEIGHTS[beta_schedule if capacity is None else "linear"]
        self.warmup_steps = warmup_epochs * steps_per_epoch

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        return "bound" if self.beta == 1 and self.capacity is None else "loss"

    def is_settled(self, step: int) -> bool:
        # A cycle ends after a step at full weight, and the next begins at 0.
        return self.warmup_steps <= 1 or any(self.weight(at, self.warmup_steps) == 1 for at in (step - 1, step))

    def scheduled(self, step: int) -> dict[str, float]:
        share = float(self.weight(step, self.warmup_steps))
        return {"beta": self.beta * share} if self.capacity is None else {"capacity": self.capacity * share}

    @property
    def couples_batch(self) -> str | None:
        if self.capacity is not None:
            return "objective.capacity is compared with a batch's mean KL"
        return "objective.free_bits is compared with a batch's mean KL" if self.free_bits else None

    def check(self, model: VAE) -> None:
        posterior, prior = model.example_distributions()
        if self.estimator == "stl" and not posterior.provides("frozen"):
            raise IncompatibleError("the posterior has no frozen()", "objective.estimator", "posterior")
        if self.kl == "analytic" and analytic_kl(posterior, prior) is None:
            reason = "their KL has no closed form; use objective.kl=auto or monte_carlo"
            raise IncompatibleError(reason, "objective.kl", "posterior", "prior")

    def __call__(self, model: VAE, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        evidence = model.evidence(x, noise, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        kl = self._divergence(evidence)
        elbo = reconstruction - kl
        share = self.weight(step, self.warmup_steps) if model.training else 1.0
        weight = self.beta * (share if self.capacity is None else 1.0)
        plain = isinstance(weight, float) and weight == 1 and not self.free_bits and self.capacity is None
        loss = -elbo.mean() if plain else weight * self._shaped(evidence, kl, share) - reconstruction.mean()
        return Bound(loss, elbo, elbo, {"reconstruction": reconstruction, "kl": kl})

    def _divergence(self, evidence: Evidence) -> Float[Tensor, "b"]:
        closed = None if self.kl == "monte_carlo" else analytic_kl(evidence.posterior, evidence.prior)
        if closed is not None:
            return closed
        stl = self.estimator == "stl"
        log_q = evidence.posterior.frozen().log_prob(evidence.z) if stl else evidence.log_q_z_given_x
        return (log_q - evidence.log_p_z).mean(0)

    def _shaped(self, evidence: Evidence, kl: Float[Tensor, "b"], share: float | Tensor) -> Float[Tensor, ""]:
        """Return f(KL) of a batch, with that share of the capacity."""
        if self.capacity is not None:
            return (kl.mean() - self.capacity * share).abs()
        if not self.free_bits:
            return kl.mean()
        if not (evidence.posterior.is_factorized and evidence.prior.is_factorized):
            return kl.mean().clamp(min=self.free_bits * evidence.z.shape[-1])
        return self._by_dimension(evidence).clamp(min=self.free_bits).sum()

    def _by_dimension(self, evidence: Evidence) -> Float[Tensor, "d"]:
        """Return the KL of each dimension, the mean over a batch."""
        q, p = evidence.posterior, evidence.prior
        closed = None if self.kl == "monte_carlo" else kl_by_dimension(q, p)
        if closed is not None:
            return closed.mean(0)
        q = q.frozen() if self.estimator == "stl" else q
        terms = q.log_prob_by_dimension(evidence.z) - p.log_prob_by_dimension(evidence.z)
        return terms.mean((0, 1))
