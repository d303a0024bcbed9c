"""The facts by which a training that is over is judged: of its curves, of the codes and of reconstructions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from warnings import catch_warnings, simplefilter

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli import noise
from vae_cli.data import Data
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import reconstructions, score
from vae_cli.evaluation.latent_codes import Codes
from vae_cli.evaluation.levels import kl_by_level
from vae_cli.runs.reader import finite
from vae_cli.training.state import Config, TrainingState, on_device

DEAD = 0.01  # nats of KL under which a latent dimension carries nothing
SILENT = 0.01  # variance of a dimension's posterior means, of that of its draws, where its KL is not known
PRIOR_GAP = 5.0  # nats between the aggregate posterior and the prior: under 1 % of the prior's draws look like codes
COMPARED, FITTED = 500, 4000  # images of a split, and training codes
JUDGED = 1000  # codes of test images that are held against the prior
FEWEST = 20  # images of a split whose numbers are compared with those of another


@dataclass(frozen=True)
class Outcome:
    """The facts by which a training is judged.

    Args:
        config: of the training.
        directory: of the run.
        steps: of the optimizer in all, in so many epochs.
        epochs: that were trained.
        noun: what an example is called.
        uniform: log-probability of an image by a uniform distribution over its levels, in nats; None for a density.
        pixels: values of an image.
        test: the test split's numbers.
        train_elbo: of the last epoch.
        selects_by: the name of the number that selects, `bound` or `loss`.
        curves: by split, the epoch and that number, larger being better, once the objective's schedules were settled.
        best_epoch: whose weights count; None where nothing was selected.
        is_validated: there is a validation split.
        units: latent dimensions; of a hierarchy its levels.
        dead: units that carry nothing: by their KL if `is_kl_known`, else by the variance of their means.
        is_hierarchy: the model has several levels.
        dead_levels: their names, of those that carry nothing.
        is_constant: all test images are the same.
        is_prior_learned: the prior has parameters of its own.
        likeness: variance of the reconstructions of test images over that of the images.
        prior_gap: KL(q(z) ‖ p(z)) by a mixture fitted to the codes, in nats.
        split_gap: the test's ELBO minus the validation's, in standard deviations of an image and of the difference.
        scale_at_bound: the part of the pixels whose scale is at a bound of the likelihood's.
        skipped: steps whose loss or gradient was not finite, or above `skip_grad_norm`.
    """

    config: Config
    directory: Path
    steps: int
    epochs: int
    noun: str
    uniform: float | None
    pixels: int
    test: dict[str, float]
    train_elbo: float
    selects_by: str = "bound"
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    best_epoch: int | None = None
    is_validated: bool = True
    units: int = 1
    dead: int = 0
    is_hierarchy: bool = False
    dead_levels: tuple[str, ...] = ()
    is_kl_known: bool = True
    is_constant: bool = False
    is_prior_learned: bool = False
    likeness: float = 1.0
    prior_gap: float = 0.0
    split_gap: tuple[float, float] = (0.0, 0.0)
    scale_at_bound: float = 0.0
    skipped: int = 0

    @property
    def value_noun(self) -> str:
        """What a value of an example is called."""
        return "pixel" if self.noun == "image" else "value"


@torch.no_grad()
def outcome(
    state: TrainingState,
    data: Data,
    codes: Codes,
    kl_per_dim: Float[Tensor, "d"] | None,
    test: dict[str, float],
    directory: Path,
    records: Sequence[dict[str, Any]],
) -> Outcome:
    """Return the facts about a training with the selected weights in its model.

    Args:
        codes: of test images, whose KL per dimension is `kl_per_dim` where it is known.
        test: the test split's numbers.
        directory: of the run.
        records: the lines of metrics.jsonl.
    """
    name, likelihood = state.objective.selects_by, state.model.likelihood
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in records:
        value = finite(line.get(name))
        if value is not None and state.objective.is_settled(line["step"]):
            curves.setdefault(line["split"], []).append((line["epoch"], -value if name == "loss" else value))
    train_elbos = [finite(line.get("elbo")) for line in records if line["split"] == "train"]
    pixels, levels = math.prod(data.facts.shape), 2 if data.facts.support == "binary" else 256
    likeness, scale_at_bound = _likeness(state, data)
    dead_levels = () if state.model.is_flat else _dead_levels(state, test)
    return Outcome(
        config=state.config,
        units=len(state.model.level_sizes) if not state.model.is_flat else state.model.latent_dim,
        directory=directory,
        steps=state.position.step,
        epochs=state.position.epoch,
        noun=data.facts.noun,
        uniform=-pixels * math.log(levels) if likelihood.discrete and state.model.preprocessing is None else None,
        pixels=pixels,
        test=test,
        train_elbo=next((elbo for elbo in reversed(train_elbos) if elbo is not None), math.nan),
        selects_by=name,
        curves=curves,
        best_epoch=None if state.best is None else state.best["epoch"],
        is_validated=data.validation is not None,
        dead=_dead(codes, state, kl_per_dim) if state.model.is_flat else len(dead_levels),
        dead_levels=dead_levels,
        is_hierarchy=not state.model.is_flat,
        is_kl_known=kl_per_dim is not None or not state.model.is_flat,
        is_constant=math.isnan(likeness),
        is_prior_learned=any(True for _ in state.model.prior.parameters()),
        likeness=likeness,
        prior_gap=_prior_gap(state, data, codes) if state.model.is_flat and test["kl"] > PRIOR_GAP else 0.0,
        split_gap=_split_gap(state, data),
        scale_at_bound=scale_at_bound,
        skipped=int(state.skipped.total),
    )


def _dead(codes: Codes, state: TrainingState, kl_per_dim: Float[Tensor, "d"] | None) -> int:
    """Return the number of latent dimensions that carry nothing."""
    if kl_per_dim is not None:
        return int((kl_per_dim < DEAD).sum())
    if len(codes.means) < FEWEST:
        return 0
    drawn = codes.draws(state.model, state.config["seed"]).double().var(0)
    return int((codes.means.double().var(0) < SILENT * drawn).sum())


def _dead_levels(state: TrainingState, test: dict[str, float]) -> tuple[str, ...]:
    """Return the names of the levels whose KL is nothing."""
    return tuple(name for name, kl in kl_by_level(state.model, test).items() if kl < DEAD)


def _likeness(state: TrainingState, data: Data) -> tuple[float, float]:
    """Return the variance of reconstructions of test images over that of the images, and the part of their pixels
    whose scale is at a bound. The first is NaN if the images are all the same."""
    model, some = state.model, on_device(data.test.spread(COMPARED), state.device)
    sums, at_bound = torch.zeros(4, *data.facts.shape, dtype=torch.float64), 0.0
    for x, p in reconstructions(model, some, state.config["seed"]):
        shown = model.likelihood.image(p)
        if model.preprocessing is not None:
            x, shown = (model.preprocessing.standardized(each) for each in (x, shown))
            shown, x = shown.masked_fill(x.isnan(), 0), x.nan_to_num(0)
        x, shown = x.cpu().double(), shown.cpu().double()
        sums += torch.stack([x.sum(0), x.square().sum(0), shown.sum(0), shown.square().sum(0)])
        at_bound += len(x) * model.likelihood.scale_at_bound(p)
    if len(some) == 1:
        return 1.0, at_bound
    mean, square, shown_mean, shown_square = sums / len(some)
    spread = float((square - mean.square()).sum())
    likeness = float((shown_square - shown_mean.square()).sum()) / spread if spread > 1e-9 else math.nan
    return likeness, at_bound / len(some)


def _prior_gap(state: TrainingState, data: Data, codes: Codes) -> float:
    """Return E_q(z)[log m(z) − log p(z)] over codes of test images, m a mixture of normals fitted to training codes.

    It estimates KL(q(z) ‖ p(z)), which is at most the mean KL(q(z|x) ‖ p(z)), from below.
    """
    from sklearn.mixture import GaussianMixture
    from threadpoolctl import threadpool_limits

    model, seed = state.model, state.config["seed"]
    fitted = latent_codes.draws(model, data.train.spread(FITTED), seed).double()
    components = max(1, min(10, len(fitted) // (10 * fitted.shape[1])))
    if len(fitted) < FEWEST or not fitted.isfinite().all():
        return 0.0
    z = codes.draws(model, seed)[:JUDGED]
    with threadpool_limits(1), catch_warnings():  # its many small products are slow on several threads
        simplefilter("ignore")  # a fit that is not at its optimum will do
        mixture = GaussianMixture(components, reg_covar=1e-3, max_iter=20, random_state=0).fit(fitted.numpy())
        log_m = torch.from_numpy(mixture.score_samples(z.double().numpy()))
    log_p = []
    for start in range(0, len(z), noise.BLOCK):
        part = slice(start, start + noise.BLOCK)
        y = None if codes.labels is None else codes.labels[:JUDGED][part].to(state.device)
        log_p.append(model.latent_prior(y).log_prob(z[part].to(state.device)).cpu().double())
    gap = float((log_m - torch.cat(log_p)).mean())
    return gap if math.isfinite(gap) else 0.0


def _split_gap(state: TrainingState, data: Data) -> tuple[float, float]:
    """Return the difference of the test and the validation ELBO in standard deviations of an image, and of itself."""
    if data.validation is None or min(len(data.validation), len(data.test)) < FEWEST:
        return 0.0, 0.0
    some = [on_device(split.spread(COMPARED), state.device) for split in (data.test, data.validation)]
    test, held_out = (score(state.model, split, (1,), state.config["seed"]).elbo for split in some)
    gap = float(test.mean() - held_out.mean())
    spread = float(torch.cat([test - test.mean(), held_out - held_out.mean()]).std())
    if not spread > 0 or not math.isfinite(gap):
        return 0.0, 0.0
    return gap / spread, gap / (spread * math.sqrt(1 / len(test) + 1 / len(held_out)))
