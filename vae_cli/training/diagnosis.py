"""Warnings about a training that is over: what its numbers say went wrong, and what to try, in a line each."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from vae_cli.constraints import show
from vae_cli.training.outcome import DEAD, PRIOR_GAP, Outcome

FEW_STEPS = 500
LARGE_RATE = 0.02  # which clipping does not mend
WORSE = 2  # times the nats of random pixels, which a network that has just begun may need for a few steps
HOPELESS = 1000.0  # nats a value, of a density
MANY_DEAD = 0.75  # of the dimensions
SHOWN_LEVELS = 6  # by name
ALIKE = 0.01  # variance of reconstructions, of that of the images, under which they do not depend on z
SLIGHT = 1e-3  # of the best number, under which a fall is none
LONG = 1 / 3  # of a run without a better validation
FAR, SURE = 0.3, 4.0  # standard deviations of an image, and of the difference, that two splits' ELBOs lie apart
AT_BOUND = 0.9  # of the pixels


def warnings(outcome: Outcome) -> list[str]:
    """Return a line for everything that went wrong."""
    if text := _diverged(outcome) or _constant(outcome):  # all else follows from it
        return [text]
    rules = [_skipped, _too_few_steps, _unsettled, _collapsed, _unlike_validation, _scale_at_bound]
    if outcome.steps >= FEW_STEPS and not _is_collapsed(outcome):
        rules += [_overfitted, _unlike_prior]
    return [text for rule in rules if (text := rule(outcome))]


def _constant(o: Outcome) -> str | None:
    return f"all test {o.noun}s are the same: there is nothing to learn; try other data" if o.is_constant else None


def _diverged(o: Outcome) -> str | None:
    elbo, curve = o.test["elbo"], o.curves.get("train", [])
    fix = "try " + " or ".join(_slower(o))
    worse = WORSE if o.steps < FEW_STEPS else 1
    least = -HOPELESS * o.pixels if o.uniform is None else worse * o.uniform
    if not elbo >= least and not o.train_elbo >= least:
        known = f"random {o.value_noun}s have {o.uniform:,.0f}" if o.uniform is not None else ""
        known = known or f"{elbo / o.pixels:,.0f} nats a {o.value_noun}"
        return f"diverged: the test ELBO is {elbo:,.0f} ({known}); {fix}"
    if len(curve) < 2:
        return None
    (epoch, best), last = max(curve, key=lambda point: point[1]), curve[-1][1]
    if best - last <= max(0.5 * (best - curve[0][1]), 4 * _noise(curve)):
        return None
    return (
        f"diverged after a good start: the training {o.selects_by} was {_shown(o, best)} in epoch {epoch} and "
        f"{_shown(o, last)} at the end; {fix}"
    )


def _skipped(o: Outcome) -> str | None:
    if not o.skipped:
        return None
    limit, reason, fixes = o.config.get("skip_grad_norm"), "the loss or its gradient was not finite", _slower(o)
    if limit is not None:
        reason, fixes = f"{reason}, or its norm was above skip_grad_norm={limit:g}", ["a larger skip_grad_norm", *fixes]
    return f"{o.skipped:,} of {o.steps:,} steps were skipped: {reason}; try {' or '.join(fixes)}"


def _too_few_steps(o: Outcome) -> str | None:
    if o.steps >= FEW_STEPS or not o.steps:
        return None
    more = math.ceil(4 * FEW_STEPS * o.epochs / o.steps)
    batch = f", or a smaller batch_size than {o.config['batch_size']}" if o.config["batch_size"] > 16 else ""
    return f"too few steps: {o.steps} in all, where thousands are usual; try epochs={more}{batch}"


def _collapsed(o: Outcome) -> str | None:
    silent = f"have a KL under {DEAD} nats" if o.is_kl_known else f"hardly depend on the {o.noun}"
    if _is_collapsed(o):
        units = "levels" if o.is_hierarchy else "latent dimensions"
        what = f"{o.dead} of {o.units} {units} {silent}" if o.dead else ""
        what = " and ".join(filter(None, [what, "all reconstructions are alike" if o.likeness < ALIKE else ""]))
        smaller = "smaller widths or channels of the model" if o.is_hierarchy else "a smaller decoder"
        return f"posterior collapse: {what}; try {', '.join([*_fixes(o), 'more epochs'])} or {smaller}"
    if o.is_hierarchy:
        return _unused_levels(o)
    if o.dead <= MANY_DEAD * o.units:
        return None
    ways = " or ".join(_fixes(o) or ["a smaller weight of the KL"])
    fewer = f"latent_dim={max(1, o.units - o.dead)}"
    return f"{o.dead} of {o.units} latent dimensions {silent}: {fewer} would do; or try {ways}"


def _unused_levels(o: Outcome) -> str | None:
    if not o.dead_levels:
        return None
    count = len(o.dead_levels)
    names = o.dead_levels if count <= SHOWN_LEVELS else (*o.dead_levels[:SHOWN_LEVELS], "…")
    what = f"level {names[0]}" if count == 1 else f"{count} of {o.units} levels, {', '.join(names)},"
    has, them = ("has", "it") if count == 1 else ("have", "them")
    ways = " or ".join(_fixes(o) or ["a smaller weight of the KL"])
    return f"{what} {has} a KL under {DEAD} nats: the model does as well without {them}; to use {them} try {ways}"


def _is_collapsed(o: Outcome) -> bool:
    is_alike = o.likeness < ALIKE and (o.steps >= FEW_STEPS or o.dead > o.units / 2)
    return is_alike or o.dead == o.units


def _overfitted(o: Outcome) -> str | None:
    held_out, train = o.curves.get("validation", []), dict(o.curves.get("train", []))
    if len(held_out) < 3:
        return None
    (epoch, best), (end, last) = max(held_out, key=lambda point: point[1]), held_out[-1]
    if epoch not in train or end not in train or end - epoch < LONG * end:
        return None
    rise, fall = train[end] - train[epoch], best - last
    if rise <= 0 or fall <= max(0.1 * rise, 2 * _noise(held_out), SLIGHT * abs(best)):
        return None
    smaller = "smaller model.latents" if o.is_hierarchy else "a smaller network or latent_dim"
    return (
        f"overfitting: the validation {o.selects_by} was best in epoch {epoch} ({_shown(o, best)}) and is "
        f"{_shown(o, last)} in epoch {end}, while training gained {rise:,.1f}; the weights of epoch {epoch} count; try "
        f"early_stopping={max(3, end // 10)}, more data, {smaller}, or optimizer=adamw with more "
        "optimizer.weight_decay"
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
    is_in_order = o.config["dataset"].get("split") == "order"  # and what comes later may well be unlike
    fix = "" if is_in_order else "; try to shuffle your own before they are split"
    return (
        f"the test ELBO lies {abs(far):.1f} standard deviations of one {o.noun} {side} validation's: the two splits "
        f"hold different kinds of {o.noun}s{fix}"
    )


def _unlike_prior(o: Outcome) -> str | None:
    if o.prior_gap <= PRIOR_GAP:
        return None
    richer = "" if o.is_prior_learned else ", or train with prior=flow or prior=mixture_of_normals"
    return (
        f"samples are far worse than reconstructions: codes of {o.noun}s lie {o.prior_gap:.1f} nats from the prior "
        f"that samples are drawn from; try vae-sample checkpoint={shlex.quote(str(o.directory))} sampler=gmm{richer}"
    )


def _scale_at_bound(o: Outcome) -> str | None:
    if o.scale_at_bound <= AT_BOUND:
        return None
    levels = ", or likelihood=discretized_logistic for images of 8 bits" if o.uniform is None else ""
    return (
        f"the likelihood's scale is at its limit for {o.scale_at_bound:.0%} of the {o.value_noun}s, and the ELBO "
        f"depends on that limit; try likelihood.scale=0.05{levels}"
    )


def _noise(curve: Sequence[tuple[int, float]]) -> float:
    """Return the median size of the steps from epoch to epoch."""
    values = [value for _, value in curve]
    return median(abs(after - before) for before, after in pairwise(values))


def _shown(o: Outcome, value: float) -> str:
    return f"{-value if o.selects_by == 'loss' else value:,.1f}"


def _fixes(o: Outcome) -> list[str]:
    """Return settings against a collapse, of those that the objective and the prior have."""
    objective, fixes = o.config["objective"], []
    beta = objective.get("beta") or 0
    if max(beta if isinstance(beta, list) else [beta]) > 1:  # a list has one for each level
        return [f"objective.beta=1 in place of {show(beta)}"]
    if o.is_prior_learned:
        fixes.append("prior=standard_normal")
    warmup = max(1, min(20, o.config["epochs"] // 3))
    if objective.get("warmup_epochs", warmup) < warmup:
        fixes.append(f"objective.warmup_epochs={warmup}")
    if objective.get("free_bits", 1) < 0.1 and objective.get("capacity") is None:
        of_levels = "objective.free_bits_by=level objective.free_bits=0.5"  # a level has many dimensions
        fixes.append(of_levels if o.is_hierarchy else "objective.free_bits=0.1")
    return fixes


def _slower(o: Outcome) -> list[str]:
    """Return the setting of a smaller learning rate: a tenth, and no more than the usual 0.001."""
    rate = o.config["optimizer"].get("lr")
    fixes = [f"optimizer.lr={min(rate / 10, 1e-3):.2g}"] if isinstance(rate, (int, float)) and rate > 0 else []
    return fixes if fixes and rate > LARGE_RATE else [*fixes, "clip_grad_norm=100"]
