"""Rows of points in latent space: from one image to another, along each dimension, over a plane."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vae_cli import noise
from vae_cli.distributions import LatentDistribution
from vae_cli.errors import ConfigError
from vae_cli.evaluation.levels import moments_below
from vae_cli.models import Hierarchy, Model

WIDTH = 3.0  # standard deviations to either side
PRIOR_DRAWS = 10_000  # for moments and quantiles of a prior that does not give them
CHUNK = 256  # images decoded together
TINY = 1e-300
PARALLEL = 1e-12  # sine of the angle between two lines that are one

Codes = Float[Tensor, "n d"]


@dataclass(frozen=True)
class Walk:
    """Points of latent space in rows, with captions.

    Args:
        z: (R, S, D).
        y: (R, S), or None.
        rows: a caption for each row, or none.
        columns: a caption for each column, or none.
        axis: a name for what the captions of the columns are, or none.
    """

    z: Float[Tensor, "r s d"]
    y: Int[Tensor, "r s"] | None
    rows: list[str]
    columns: list[str]
    axis: str = ""

    @torch.no_grad()
    def images(self, model: Model) -> Iterator[Float[Tensor, "n c h w"]]:
        """Yield the image of p(x|z) at each point, row by row, in chunks on the CPU."""
        device = next(model.parameters()).device
        points = self.z.flatten(0, 1).to(device)
        labels = None if self.y is None else self.y.flatten().to(device)
        for start in range(0, len(points), CHUNK):
            index = slice(start, start + CHUNK)
            yield model.image(points[index], None if labels is None else labels[index]).cpu()


def interpolate(
    first: Codes,
    second: Codes,
    steps: int,
    labels: tuple[Tensor, Tensor] | None = None,
    rows: list[str] | None = None,
    sphere: tuple[Tensor, Tensor] | None = None,
) -> Walk:
    """Return straight lines z = (1 − t) z₁ + t z₂, t from 0 to 1, or arcs; a point has the label of its nearer end.

    Of two independent draws of N(0, I) in D dimensions a straight line has E‖z‖² = D ((1 − t)² + t²): in the middle
    half that of a draw. An arc keeps the norm.

    Args:
        first: z₁ of each row.
        second: z₂ of each row.
        steps: points in a row, at least 2.
        labels: (R,) of both ends, of a conditional model.
        rows: captions.
        sphere: m and s of the arcs, (D,) or (R, D); see `slerp`. None for straight lines.
    """
    t = torch.linspace(0, 1, steps, device=first.device)
    if sphere is None:
        z = torch.lerp(first[:, None], second[:, None], t[None, :, None])
    else:
        center, scale = (moment.cpu().double() for moment in sphere)  # which some devices lack
        ends = [(end.cpu().double() - center) / scale for end in (first, second)]
        arcs = slerp(ends[0], ends[1], t.cpu().double())
        z = (center.unsqueeze(-2) + scale.unsqueeze(-2) * arcs).to(first)
    y = None if labels is None else torch.where(t[None] <= 0.5, labels[0][:, None], labels[1][:, None])
    return Walk(z, y, rows or [], [f"{value:.0%}" for value in t.tolist()])


def slerp(first: Codes, second: Codes, t: Float[Tensor, "s"]) -> Float[Tensor, "n s d"]:
    """Return spherical interpolations: â cos tΩ + ŵ sin tΩ times (1 − t) ‖a‖ + t ‖b‖.

    Ω is the angle between a and b, and ŵ the unit vector along the part of b that is orthogonal to a. The norm goes
    straight from ‖a‖ to ‖b‖. As Ω goes to 0 the arc becomes the straight line. Opposite ends have no arc of their own:
    theirs bends towards the axis that is nearest to being orthogonal to a. An end of norm 0 has the other's direction.

    K. Shoemake, Animating Rotation with Quaternion Curves, 1985; T. White, Sampling Generative Networks, 2016.

    Args:
        first: a of each row, in double precision; at least two dimensions.
        second: b of each row.
        t: from 0 to 1.
    """
    lengths = [end.norm(dim=-1, keepdim=True) for end in (first, second)]
    a, b = (end / length.clamp(min=TINY) for end, length in zip((first, second), lengths))
    a, b = torch.where(lengths[0] > 0, a, b), torch.where(lengths[1] > 0, b, a)
    cosine = (a * b).sum(-1, keepdim=True)
    orthogonal = b - cosine * a
    angle = torch.atan2(orthogonal.norm(dim=-1, keepdim=True), cosine)
    axis = torch.nn.functional.one_hot(a.abs().argmin(-1), a.shape[-1]).to(a)
    bend = axis - (axis * a).sum(-1, keepdim=True) * a
    is_opposite = (orthogonal.norm(dim=-1, keepdim=True) < PARALLEL) & (cosine < 0)
    w = torch.nn.functional.normalize(torch.where(is_opposite, bend, orthogonal), dim=-1, eps=TINY)
    turned = (angle * t).unsqueeze(-1)
    directions = a[:, None] * turned.cos() + w[:, None] * turned.sin()
    return directions * torch.lerp(lengths[0], lengths[1], t).unsqueeze(-1)


def sphere_of(model: Model, labels: tuple[Tensor, Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return the prior's mean and standard deviation (R, D), or (D,) without labels: in units of this deviation an arc
    about this mean goes through the places where a normal prior has its mass. Of a prior given the label, they are the
    averages over a row's two ends.

    Raises:
        ConfigError: for a hierarchy, whose levels have priors that depend on other levels, and for one dimension.
    """
    if not model.is_flat:
        raise ConfigError("path=slerp turns one latent vector about the prior's mean, not levels; use path=linear")
    if model.latent_dim < 2:
        raise ConfigError("path=slerp turns a latent vector, and this model has latent_dim=1; use path=linear")
    if labels is None:
        return prior_moments(model)
    moments = {label: prior_moments(model, label) for label in torch.cat(labels).unique().tolist()}
    ends = [[torch.stack([moments[label][n] for label in end.tolist()]) for end in labels] for n in range(2)]
    return (ends[0][0] + ends[0][1]) / 2, (ends[1][0] + ends[1][1]) / 2


@torch.no_grad()
def traverse(
    model: Model,
    means: Codes,
    steps: int,
    most: int | None = None,
    around: Tensor | None = None,
    label: int = 0,
    level: str | None = None,
) -> Walk:
    """Return a row for each latent dimension, over three of the prior's standard deviations to either side of a point.
    The dimension whose posterior mean varies most over the examples comes first.

    In a hierarchy these deviations are the prior's given the levels above the dimension, and the levels below it
    follow at the prior's means.

    Args:
        model: a trained model.
        means: of q(z|x) for N examples, as `relative_means` of vae_cli.evaluation.levels gives them.
        steps: points in a row.
        most: rows at most.
        around: (D,) the point; the prior's mean without one.
        label: of all points, of a conditional model.
        level: whose dimensions alone are shown, by its name.
    """
    point, scale = prior_moments(model, label, around)
    names, kept = _dimensions(model, level)
    activity = means.double().var(0, correction=0)
    order = [d for d in activity.argsort(descending=True, stable=True).tolist() if d in kept][:most]
    offsets = torch.linspace(-WIDTH, WIDTH, steps, device=point.device)
    y = torch.full((len(order), steps), label, device=point.device) if model.classes else None
    z = point.expand(len(order), steps, -1).clone()
    for row, dimension in enumerate(order):
        z[row, :, dimension] = point[dimension] + offsets * scale[dimension]
        if isinstance(model, Hierarchy):
            z[row] = model.complete(z[row], kept[dimension], y=None if y is None else y[row])
    captions = [f"{names[d]}  var {activity[d]:.2f}" for d in order]
    return Walk(z, y, captions, [f"{round(value, 1) + 0.0:+.1f} sd" for value in offsets.tolist()])


def _dimensions(model: Model, level: str | None) -> tuple[list[str], dict[int, int]]:
    """Return the names of all dimensions of z, and the numbers of those of a level, or of all, each with the number of
    levels from the top down to its own."""
    sizes = model.level_sizes
    places = [(name, number, own) for number, (name, size) in enumerate(sizes.items()) for own in range(size)]
    kept = {d: len(sizes) - number for d, (name, number, _) in enumerate(places) if level in (None, name)}
    return model.dimension_names, kept


@torch.no_grad()
def manifold(model: Model, steps: int, label: int = 0) -> Walk:
    """Return a square grid over a latent plane, or a row over a line, at the quantiles (i + ½) / steps of the prior's
    dimensions: the first grows to the right, the second upwards.

    Raises:
        ConfigError: if the model has more than two latent dimensions.
    """
    dim = model.latent_dim
    assert model.is_flat, "a hierarchy has no latent plane"
    if dim > 2:
        raise ConfigError(
            f"mode=manifold shows a latent plane, and this model has latent_dim={dim}; use mode=traverse, or a model "
            "with latent_dim=2"
        )
    places = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
    quantiles = prior_quantiles(model, places, label)
    across = quantiles[:, 0].expand(steps if dim == 2 else 1, -1)
    z = across.unsqueeze(-1)
    if dim == 2:
        z = torch.stack([across, quantiles[:, 1].flip(0).unsqueeze(-1).expand_as(across)], dim=-1)
    y = torch.full(z.shape[:2], label, device=z.device) if model.classes else None
    columns = [f"{value:+.2f}" for value in quantiles[:, 0].tolist()]
    rows = [f"z1 {value:+.2f}" for value in quantiles[:, 1].flip(0).tolist()] if dim == 2 else []
    return Walk(z, y, rows, columns, axis="z0")


@torch.no_grad()
def prior_moments(
    model: Model, label: int = 0, around: Tensor | None = None
) -> tuple[Float[Tensor, "d"], Float[Tensor, "d"]]:
    """Return a point and the prior's standard deviation there in each dimension: of 10,000 draws where it does not give
    it, such as a mixture or a flow. The point is `around` or the prior's mean.

    Of a hierarchy a level's mean and deviation are those given the levels above.
    """
    if isinstance(model, Hierarchy):
        return _level_moments(model, label, around)
    prior = _prior(model, label)
    if prior.provides("moments"):
        mean, std = (moment.flatten() for moment in prior.moments())
    else:
        drawn = _draws(model, label)
        mean, std = drawn.mean(0), drawn.std(0)
    return mean if around is None else around.to(mean), std


def _level_moments(model: Hierarchy, label: int, around: Tensor | None) -> tuple[Tensor, Tensor]:
    y = torch.full((1,), label, device=model.start.device) if model.classes else None
    top = model.top_prior(y)
    if top.provides("moments"):
        mean, std = (moment.flatten() for moment in top.moments())
    else:
        epsilon = noise.by_image(PRIOR_DRAWS, 1, model.prior.noise_dim, 0, "prior draws")[0].to(model.start.device)
        shape = (-1, 1, model.prior.noise_dim) if y is not None and top.batch_shape else epsilon.shape
        drawn, _ = top.rsample_and_log_prob(epsilon.reshape(shape))
        mean, std = drawn.flatten(0, -2).mean(0), drawn.flatten(0, -2).std(0)
    point = around
    if around is None:
        z = torch.cat([mean.new_zeros(model.latent_dim - len(mean)), mean])
        point = model.complete(z[None], 1, y=y)[0]
    assert point is not None
    point = point.to(mean)
    return point, torch.cat([moments_below(model, point[None], y)[1][0], std])


@torch.no_grad()
def prior_quantiles(model: Model, places: Float[Tensor, "s"], label: int = 0) -> Float[Tensor, "s d"]:
    """Return the quantiles of each dimension of the prior: of 10,000 draws where it does not give them."""
    prior = _prior(model, label)
    if prior.provides("quantiles"):
        weight = next(model.parameters())
        return prior.quantiles(places.to(weight.device).unsqueeze(-1)).to(weight)
    drawn = _draws(model, label)
    return drawn.quantile(places.to(drawn), dim=0)


def _prior(model: Model, label: int) -> LatentDistribution:
    device = next(model.parameters()).device
    return model.latent_prior(torch.full((1,), label, device=device) if model.classes else None)


def _draws(model: Model, label: int) -> Tensor:
    device = next(model.parameters()).device
    drawn = noise.by_image(PRIOR_DRAWS, 1, model.prior_noise_dim, 0, "prior draws")[0].to(device)
    parts = []
    for part in drawn.split(CHUNK):
        y = torch.full((len(part),), label, device=device) if model.classes else None
        parts.append(model.sample_latents(part, y=y))
    return torch.cat(parts)
