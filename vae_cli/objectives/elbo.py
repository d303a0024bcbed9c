"""The evidence lower bound and losses from its two terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.constraints import Described, Length, NonNegative
from vae_cli.data.batches import Batch
from vae_cli.distributed import collectives
from vae_cli.errors import ConfigError
from vae_cli.models import Evidence, Level, Model
from vae_cli.objectives.base import Bound, IncompatibleError, Objective, level_terms
from vae_cli.schedules import WEIGHTS

Weights = Annotated[Sequence[NonNegative], Length(1), Described("a list of numbers of at least 0, one for each level")]

FLOOR = 0.01  # nats that a balanced warm-up adds to each level's KL, so that one of 0 nats keeps a weight


class ELBO(Objective):
    r"""ELBO(x) = (1/K) Σ_k log p(x|z_k) − KL(q(z|x) ‖ p(z)),   z_k ~ q(z|x)

    D. P. Kingma and M. Welling, Auto-Encoding Variational Bayes, 2014. The loss is −(reconstruction − β f(KL)), where
    f is the identity; or |KL − C|, with `capacity` C; or Σ_d max(λ, KL_d), with `free_bits` λ, where KL_d is a
    batch's mean in one dimension if posterior and prior factorize, else max(λ D, KL). Of a hierarchy the KL is the sum
    over its levels, each given the levels above.

    I. Higgins et al., β-VAE, 2017. C. P. Burgess et al., Understanding disentangling in β-VAE, 2018. D. P. Kingma et
    al., Improving Variational Inference with Inverse Autoregressive Flow, 2016 (free bits). G. Roeder, Y. Wu and D.
    Duvenaud, Sticking the Landing, 2017. C. K. Sønderby et al., Ladder Variational Autoencoders, 2016, and H. Fu et
    al., Cyclical Annealing Schedule, 2019 (schedules of β).

    Args:
        kl: `analytic`; `monte_carlo`, the mean of log q(z_k|x) − log p(z_k); or `auto`, the former where a closed
            form exists and the estimator is not `stl`.
        estimator: `pathwise`; or `stl`, without the score of q(z|x), whose expectation is 0 and which is noise alone
            once q is exact.
        beta: β; of a hierarchy it may be a list with one for each level, from z1 on.
        beta_schedule: `constant`; `linear`, β grows from 0 over `warmup_epochs`; `cyclical`, it does so in the first
            half of every `warmup_epochs`; `balanced`, linear, and meanwhile each level's is multiplied by
            (KL_l + 0.01) / (mean of all levels' KL + 0.01), of a batch, so that no level takes all of it. With `linear`
            and no `warmup_epochs` it is constant. `auto` is linear, but balanced where the program builds a hierarchy.
        warmup_epochs: epochs of the schedule; `auto` is 0, but a tenth of the training where the program builds a
            hierarchy. With `capacity` C grows linearly over them, and β is constant.
        free_bits: λ, nats.
        free_bits_by: what has λ nats free: each `dimension`; each `level`; or the `sum` of all.
        capacity: C, nats.
        select_in_warmup: the best epoch may be one in which β or C still grows; it is judged at their final values all
            the same. A small training set may be overfitted before the warm-up ends.
        mc_samples: K.
        steps_per_epoch: steps in an epoch.

    Raises:
        ConfigError: for two choices that exclude each other.
    """

    def __init__(
        self,
        kl: Literal["auto", "analytic", "monte_carlo"] = "auto",
        estimator: Literal["pathwise", "stl"] = "pathwise",
        beta: NonNegative | Weights = 1.0,
        beta_schedule: Literal["auto", "constant", "linear", "cyclical", "balanced"] = "auto",
        warmup_epochs: Literal["auto"] | NonNegative = "auto",
        free_bits: NonNegative = 0.0,
        free_bits_by: Literal["dimension", "level", "sum"] = "dimension",
        capacity: NonNegative | None = None,
        select_in_warmup: bool = False,
        mc_samples: int = 1,
        steps_per_epoch: int = 1,
    ) -> None:
        super().__init__(mc_samples)
        if estimator == "stl" and kl == "analytic":
            raise ConfigError("objective.estimator=stl is of the Monte Carlo KL: use kl=auto or monte_carlo with it")
        if free_bits and capacity is not None:
            raise ConfigError("objective.free_bits and objective.capacity both reshape the KL: set one of them")
        beta_schedule = "linear" if beta_schedule == "auto" else beta_schedule
        warmup_epochs = 0 if warmup_epochs == "auto" else warmup_epochs
        if beta_schedule == "balanced" and not warmup_epochs:
            raise ConfigError(
                "objective.beta_schedule=balanced is for a warm-up: give objective.warmup_epochs, such as 2"
            )
        betas = [float(weight) for weight in beta] if isinstance(beta, Sequence) else [float(beta)]
        is_balanced = beta_schedule == "balanced"
        if (len(betas) > 1 or is_balanced) and (capacity is not None or free_bits_by == "sum"):
            what = "objective.capacity" if capacity is not None else "objective.free_bits_by=sum"
            each = "objective.beta_schedule=balanced" if is_balanced else "objective.beta"
            raise ConfigError(f"{what} reshapes the sum of the levels' KL, and {each} is by level: set one of them")
        self.kl = "monte_carlo" if estimator == "stl" else kl
        self.estimator, self.betas = estimator, betas
        self.free_bits, self.free_bits_by, self.capacity = free_bits, free_bits_by, capacity
        self.weight = WEIGHTS["linear" if capacity is not None or is_balanced else beta_schedule]
        self.is_balanced, self.select_in_warmup = is_balanced, select_in_warmup
        self.warmup_steps = warmup_epochs * steps_per_epoch

    @property
    def selects_by(self) -> Literal["bound", "loss"]:
        return "bound" if set(self.betas) == {1.0} and self.capacity is None else "loss"

    def is_settled(self, step: int) -> bool:
        # A cycle ends after a step at full weight, and the next begins at 0.
        return self.warmup_steps <= 1 or any(self.weight(at, self.warmup_steps) == 1 for at in (step - 1, step))

    def may_select(self, step: int) -> bool:
        return self.select_in_warmup or self.is_settled(step)

    def scheduled(self, step: int) -> dict[str, float]:
        share = float(self.weight(step, self.warmup_steps))
        if self.capacity is not None:
            return {"capacity": self.capacity * share}
        if len(self.betas) == 1:
            return {"beta": self.betas[0] * share}
        return {f"beta_z{number}": beta * share for number, beta in enumerate(self.betas, start=1)}

    @property
    def couples_batch(self) -> str | None:
        if self.capacity is not None:
            return "objective.capacity is compared with a batch's mean KL"
        return "objective.free_bits is compared with a batch's mean KL" if self.free_bits else None

    def check(self, model: Model) -> None:
        posterior, _ = model.example_distributions()
        if self.estimator == "stl" and not posterior.provides("frozen"):
            raise IncompatibleError("the posterior has no frozen()", "objective.estimator", "posterior")
        if self.kl == "analytic" and not model.has_analytic_kl:
            reason = "their KL has no closed form; use objective.kl=auto or monte_carlo"
            groups = ("posterior", "prior") if model.is_flat else ("model", "prior")
            raise IncompatibleError(reason, "objective.kl", *groups)
        if self.is_balanced and model.is_flat:
            raise IncompatibleError("there is one level, and nothing to balance", "objective.beta_schedule", "model")
        if self.estimator == "stl" and self.free_bits and self.free_bits_by == "dimension" and not model.is_flat:
            reason = "a level's dimensions depend on the levels above; use objective.free_bits_by=level or sum"
            raise IncompatibleError(reason, "objective.estimator", "objective.free_bits", "model")
        if len(self.betas) not in (1, count := len(model.level_sizes)):
            levels = (
                "one level; give a number" if count == 1 else f"{count} levels; give a number, or {count} from z1 on"
            )
            reason = f"it has {len(self.betas)} weights, and the model {levels}"
            raise IncompatibleError(reason, "objective.beta", "model")

    def __call__(self, model: Model, batch: Batch, noise: Float[Tensor, "k b e"], step: int | Tensor) -> Bound:
        x, y = batch
        evidence = model.evidence(x, noise, y)
        reconstruction = evidence.log_p_x_given_z.mean(0)
        divergences = self._divergences(evidence)
        kl = divergences[0] if len(divergences) == 1 else torch.stack(divergences).sum(0)
        elbo = reconstruction - kl
        share = self.weight(step, self.warmup_steps) if model.training else 1.0
        is_constant = isinstance(share, float) and share == 1
        if is_constant and set(self.betas) == {1.0} and not self.free_bits and self.capacity is None:
            loss = -elbo.mean()
        else:
            loss = self._penalty(evidence, divergences, kl, share) - reconstruction.mean()
        terms = {"reconstruction": reconstruction, "kl": kl, **level_terms(evidence, divergences)}
        return Bound(loss, elbo, elbo, terms)

    def _divergences(self, evidence: Evidence) -> list[Float[Tensor, "b"]]:
        """Return the KL of each level: its closed form, or the mean over the draws."""
        if self.estimator == "stl":
            log_q = evidence.posterior.frozen().log_prob_by_level(evidence.z)
            return [(of_level - level.log_p).mean(0) for of_level, level in zip(log_q, evidence.levels)]
        closed = [None if self.kl == "monte_carlo" else level.analytic_kl() for level in evidence.levels]
        return [(level.log_q - level.log_p).mean(0) if kl is None else kl for level, kl in zip(evidence.levels, closed)]

    def _penalty(
        self, evidence: Evidence, divergences: list[Tensor], kl: Float[Tensor, "b"], share: float | Tensor
    ) -> Float[Tensor, ""]:
        """Return Σ_l β_l f(KL_l) of a batch, with a share of β or of the capacity."""
        if self.capacity is not None:
            return self.betas[0] * (kl.mean() - self.capacity * share).abs()
        if self.free_bits and self.free_bits_by == "sum":
            return share * self.betas[0] * kl.mean().clamp(min=self.free_bits)
        if len(self.betas) == 1 and not self.free_bits and not self.is_balanced:
            return share * self.betas[0] * kl.mean()
        betas = kl.new_tensor(self.betas).expand(len(divergences))
        weights = betas * _balance(divergences, share) if self.is_balanced else betas
        levels = zip(weights, evidence.levels, divergences)
        shaped = [weight * self._shaped(level, of_level) for weight, level, of_level in levels]
        return share * torch.stack(shaped).sum()

    def _shaped(self, level: Level, kl: Float[Tensor, "b"]) -> Float[Tensor, ""]:
        """Return f(KL) of one level of a batch."""
        if self.free_bits and self.free_bits_by == "dimension":
            if level.posterior.is_factorized and level.prior.is_factorized:
                return self._by_dimension(level).clamp(min=self.free_bits).sum()
            return kl.mean().clamp(min=self.free_bits * level.z.shape[-1])
        return kl.mean().clamp(min=self.free_bits) if self.free_bits else kl.mean()

    def _by_dimension(self, level: Level) -> Float[Tensor, "d"]:
        """Return the KL of each dimension, the mean over a batch."""
        closed = None if self.kl == "monte_carlo" else level.kl_by_dimension()
        if closed is not None:
            return closed.mean(0)
        q = level.posterior.frozen() if self.estimator == "stl" else level.posterior
        terms = q.log_prob_by_dimension(level.z) - level.prior.log_prob_by_dimension(level.z)
        return terms.mean((0, 1))


def _balance(divergences: Sequence[Float[Tensor, "b"]], share: float | Tensor) -> Float[Tensor, "l"]:
    """Return what each level's β is multiplied by in a batch of all processes; 1 once the warm-up is over.

    A. Vahdat and J. Kautz, NVAE, 2020, appendix A; here without a factor for a level's size.
    """
    ones = divergences[0].new_ones(len(divergences))
    if isinstance(share, float) and share >= 1:
        return ones
    sums = torch.stack([kl.detach().sum() for kl in divergences] + [ones[0] * len(divergences[0])])
    means = collectives.all_reduce(sums)[:-1] / sums[-1]
    parts = means.clamp(min=0) + FLOOR  # a mean over draws may be below 0
    return torch.where(torch.as_tensor(share, device=ones.device) < 1, parts / parts.mean(), ones)
