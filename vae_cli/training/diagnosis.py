"""Warnings about a training that is over: what its numbers say went wrong, and what to try, in a line each."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.build.options import choice
from vae_cli.data import Data
from vae_cli.data.batches import labels, pixels
from vae_cli.evaluation import latent_codes
from vae_cli.evaluation.bounds import score
from vae_cli.evaluation.latent_codes import Codes
from vae_cli.training.state import Config, TrainingState, on_device

FEW_STEPS = 500
WORSE = 2  # times the nats of random pixels, which a network that has just begun may need for a few steps
DEAD = 0.01  # nats of KL under which a latent dimension carries nothing
MANY_DEAD = 0.75  # of the dimensions
ALIKE = 0.01  # variance of reconstructions, of that of the images, under which they do not depend on z
LONG = 1 / 3  # of a run without a better validation
PRIOR_GAP = 5.0  # nats between the aggregate posterior and the prior: under 1 % of the prior's draws look like codes
FAR, SURE = 0.3, 4.0  # standard deviations of an image, and of the difference, that two splits' ELBOs lie apart
COMPARED, FITTED = 500, 4000  # images of a split, and training codes
AT_BOUND = 0.9  # of the pixels


@dataclass(frozen=True)
class Outcome:
    """The facts by which a training is judged.

    Args:
        config: of the training.
        steps: of the optimizer in all.
        uniform: ELBO of values drawn uniformly from the data's support, in nats.
        test: the test split's numbers.
        train_elbo: of the last epoch.
        curves: by split, the epoch and the number that selects (larger is better) of every settled validation.
        best_epoch: whose weights count; None where nothing was selected.
        is_validated: there is a validation split.
        dead: latent dimensions that carry nothing.
        likeness: variance of the reconstructions of test images over that of the images.
        prior_gap: KL(q(z) ‖ p(z)) by a mixture fitted to the codes, in nats.
        split_gap: the test's ELBO minus the validation's, in standard deviations of an image and of the difference.
        scale_at_bound: the part of the pixels whose scale is at a bound of the likelihood's.
        skipped: steps whose loss or gradient was not finite.
    """

    config: Config
    steps: int
    uniform: float
    test: dict[str, float]
    train_elbo: float
    curves: dict[str, list[tuple[int, float]]] = field(default_factory=dict)
    best_epoch: int | None = None
    is_validated: bool = True
    dead: int = 0
    likeness: float = 1.0
    prior_gap: float = 0.0
    split_gap: tuple[float, float] = (0.0, 0.0)
    scale_at_bound: float = 0.0
    skipped: int = 0


def warnings(outcome: Outcome) -> list[str]:
    """Return a line for everything that went wrong."""
    if text := _diverged(outcome):  # all else follows from it
        return [text]
    return [text for rule in RULES if (text := rule(outcome))]


def _diverged(o: Outcome) -> str | None:
    elbo, curve = o.test["elbo"], o.curves.get("train", [])
    fix = "try " + " or ".join([*_slower(o), "clip_grad_norm=100"])
    if not elbo >= WORSE * o.uniform and not o.train_elbo >= WORSE * o.uniform:
        return f"diverged: a test ELBO of {elbo:,.0f} is below the {o.uniform:,.0f} of random pixels; {fix}"
    if len(curve) < 2:
        return None
    (epoch, best), last = max(curve, key=lambda point: point[1]), curve[-1][1]
    if best - last <= 0.5 * abs(best) and not (last < curve[0][1] and best - last > 0.1 * abs(best)):
        return None
    return f"diverged after a good start: training fell from {best:,.1f} in epoch {epoch} to {last:,.1f}; {fix}"


def _skipped(o: Outcome) -> str | None:
    if not o.skipped:
        return None
    fix = " or ".join([*_slower(o), "clip_grad_norm=100"])
    return f"{o.skipped:,} of {o.steps:,} steps were skipped: the loss or its gradient was not finite; try {fix}"


def _too_few_steps(o: Outcome) -> str | None:
    if o.steps >= FEW_STEPS:
        return None
    epochs = max(1, o.config["epochs"])
    more = math.ceil(4 * FEW_STEPS * epochs / max(1, o.steps))
    batch = f", or a smaller batch_size than {o.config['batch_size']}" if o.config["batch_size"] > 16 else ""
    return f"too few steps: {o.steps} in all, where thousands are usual; try epochs={more}{batch}"


def _collapsed(o: Outcome) -> str | None:
    size = o.config["latent_dim"]
    is_alike = o.likeness < ALIKE and (o.steps >= FEW_STEPS or o.dead > size / 2)
    if not is_alike and o.dead <= MANY_DEAD * size:
        return None
    if is_alike or o.dead == size:
        tries = [*_keys(o, "objective.warmup_epochs=20", "objective.free_bits=0.1"), *_smaller(o, "objective.beta", 4)]
        what = "reconstructions are all alike" if is_alike else "the decoder hardly uses z"
        return (
            f"posterior collapse: {o.dead} of {size} latent dimensions have a KL under {DEAD} nats, and {what}; "
            f"try {', '.join([*tries, 'more epochs'])} or a smaller decoder"
        )
    return (
        f"{o.dead} of {size} latent dimensions carry nothing (a KL under {DEAD} nats): "
        f"latent_dim={max(1, size - o.dead)} would do, or "
        f"try {' or '.join(_keys(o, 'objective.free_bits=0.1', 'objective.warmup_epochs=20') or ['a smaller beta'])}"
    )


def _overfitted(o: Outcome) -> str | None:
    held_out, train = o.curves.get("validation", []), dict(o.curves.get("train", []))
    if len(held_out) < 3:
        return None
    (epoch, best), (end, last) = max(held_out, key=lambda point: point[1]), held_out[-1]
    if epoch not in train or end not in train or end - epoch < LONG * end:
        return None
    rise, fall = train[end] - train[epoch], best - last
    if rise <= 0 or fall <= 0.1 * rise:
        return None
    return (
        f"overfitting: validation fell from {best:,.1f} in epoch {epoch} to {last:,.1f} in epoch {end}, while training "
        f"rose by {rise:,.1f}; the weights of epoch {epoch} count; try early_stopping={max(3, end // 10)}, more data, "
        "a smaller network or latent_dim, or optimizer=adamw with more optimizer.weight_decay"
    )


def _unsettled(o: Outcome) -> str | None:
    if not o.is_validated or o.best_epoch is not None or o.config["epochs"] == 0:
        return None
    warmup = o.config["objective"].get("warmup_epochs", 0)
    return (
        f"no epoch was selected: a schedule of the objective still moved when training ended, so the last weights "
        f"count; try more epochs than objective.warmup_epochs={warmup:g}"
    )


def _unlike_validation(o: Outcome) -> str | None:
    far, sure = o.split_gap
    if abs(far) <= FAR or abs(sure) <= SURE:
        return None
    side = "above" if far > 0 else "below"
    return (
        f"the test ELBO lies {abs(far):.1f} standard deviations of an image {side} validation's: the two splits hold "
        "different kinds of images; shuffle them before they are split"
    )


def _unlike_prior(o: Outcome) -> str | None:
    if o.prior_gap <= PRIOR_GAP:
        return None
    richer = ""
    if choice("prior", o.config["prior"]) in ("standard_normal", "learned_normal"):
        richer = ", or train with prior=vampprior, prior=flow or prior=mixture_of_normals"
    return (
        f"samples are far worse than reconstructions: codes of images lie {o.prior_gap:.1f} nats from the prior that "
        f"samples are drawn from; try vae-sample sampler=gmm{richer}"
    )


def _scale_at_bound(o: Outcome) -> str | None:
    if o.scale_at_bound <= AT_BOUND:
        return None
    return (
        f"the likelihood's scale is at its bound for {o.scale_at_bound:.0%} of the pixels: the bound says more of it "
        "than of the images; try likelihood.scale=0.05, or likelihood=discretized_logistic for 8-bit images"
    )


RULES: tuple[Callable[[Outcome], str | None], ...] = (
    *(_skipped, _too_few_steps, _collapsed, _overfitted, _unsettled),
    *(_unlike_validation, _unlike_prior, _scale_at_bound),
)


def _keys(o: Outcome, *settings: str) -> list[str]:
    """Return the settings whose key the config has with a smaller value."""
    found = []
    for setting in settings:
        key, _, value = setting.partition("=")
        group, _, name = key.partition(".")
        if name in o.config[group] and (o.config[group][name] or 0) < float(value):
            found.append(setting)
    return found


def _slower(o: Outcome) -> list[str]:
    """Return the setting of a smaller learning rate: a tenth, and no more than the usual 0.001."""
    rate = o.config["optimizer"].get("lr")
    return [f"optimizer.lr={min(rate / 10, 1e-3):.2g}"] if isinstance(rate, (int, float)) and rate > 0 else []


def _smaller(o: Outcome, key: str, factor: float) -> list[str]:
    """Return the setting of a key to a fraction of its value, if it has one."""
    group, _, name = key.partition(".")
    value = o.config[group].get(name)
    return [f"{key}={value / factor:.2g}"] if isinstance(value, (int, float)) and value > 0 else []


@torch.no_grad()
def outcome(
    state: TrainingState,
    data: Data,
    codes: Codes,
    kl_per_dim: Float[Tensor, "d"] | None,
    test: dict[str, float],
    records: Sequence[dict[str, Any]],
) -> Outcome:
    """Return the facts about a training with the selected weights in its model.

    Args:
        codes: of test images, whose KL per dimension is `kl_per_dim` where it is known.
        test: the test split's numbers.
        records: the lines of metrics.jsonl.
    """
    model, config, name = state.model, state.config, state.objective.selects_by
    curves: dict[str, list[tuple[int, float]]] = {}
    for line in records:
        if state.objective.is_settled(line["step"]) and isinstance(line.get(name), float):
            curves.setdefault(line["split"], []).append((line["epoch"], line[name] * (-1 if name == "loss" else 1)))
    levels = 2 if data.facts.support == "binary" else 256
    dead = codes.means.double().var(0) < DEAD if kl_per_dim is None else kl_per_dim < DEAD
    some = on_device(data.test.spread(COMPARED), state.device)
    x, y = pixels(some, slice(None), state.device), labels(some, slice(None), state.device)
    p = model.reconstruct(x, y)
    spread = x.var(0, correction=0).sum()
    shown = model.likelihood.image(p).var(0, correction=0).sum()
    return Outcome(
        config=config,
        steps=state.position.step,
        uniform=-math.prod(data.facts.shape) * math.log(levels),
        test=test,
        train_elbo=next((line["elbo"] for line in reversed(records) if line["split"] == "train"), math.nan),
        curves=curves,
        best_epoch=None if state.best is None else state.best["epoch"],
        is_validated=data.validation is not None,
        dead=int(dead.sum()),
        likeness=float(shown / spread) if spread > 0 else 1.0,
        prior_gap=_prior_gap(state, data, codes) if test["kl"] > PRIOR_GAP else 0.0,
        split_gap=_split_gap(state, data),
        scale_at_bound=model.likelihood.scale_at_bound(p),
        skipped=int(state.skipped.total),
    )


def _prior_gap(state: TrainingState, data: Data, codes: Codes) -> float:
    """Return E_q(z)[log m(z) − log p(z)] over codes of test images, m a mixture of normals fitted to training codes.

    It estimates KL(q(z) ‖ p(z)), which is at most the mean KL(q(z|x) ‖ p(z)), from below.
    """
    from sklearn.mixture import GaussianMixture

    model, seed = state.model, state.config["seed"]
    fitted = latent_codes.draws(model, data.train.spread(FITTED), seed).double()
    components = max(1, min(10, len(fitted) // (10 * fitted.shape[1])))
    if len(fitted) < 2 * components or not fitted.isfinite().all():
        return 0.0
    mixture = GaussianMixture(components, reg_covar=1e-3, random_state=0).fit(fitted.numpy())
    z = codes.draws(model, seed).double()
    y = None if codes.labels is None else codes.labels.to(state.device)
    log_p = model.latent_prior(y).log_prob(z.float().to(state.device)).cpu().double()
    gap = float(torch.from_numpy(mixture.score_samples(z.numpy())).sub(log_p).mean())
    return gap if math.isfinite(gap) else 0.0


def _split_gap(state: TrainingState, data: Data) -> tuple[float, float]:
    """Return the difference of the test and the validation ELBO in standard deviations of an image, and of itself."""
    if data.validation is None or min(len(data.validation), len(data.test)) < 2:
        return 0.0, 0.0
    seed, splits = state.config["seed"], (data.test, data.validation)
    test, held_out = (score(state.model, on_device(s.spread(COMPARED), state.device), (1,), seed).elbo for s in splits)
    gap, spread = (
        float(test.mean() - held_out.mean()),
        float(torch.cat([test - test.mean(), held_out - held_out.mean()]).std()),
    )
    if not spread > 0 or not math.isfinite(gap):
        return 0.0, 0.0
    return gap / spread, gap / (spread * math.sqrt(1 / len(test) + 1 / len(held_out)))
