"""The pictures that a training writes."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor

from vae_cli.data import Split
from vae_cli.data.batches import labels, pixels
from vae_cli.data.columns import Column, names_of
from vae_cli.evaluation.bounds import reconstructions, score
from vae_cli.evaluation.latent_codes import Codes
from vae_cli.evaluation.levels import kl_by_level
from vae_cli.generation.pictures import levels_picture, reconstruction_grid, sample_grid, traversal_picture
from vae_cli.generation.samplers import Sampler, generate_images
from vae_cli.models import Hierarchy
from vae_cli.models.level_distributions import HierarchicalPrior
from vae_cli.reporting import charts, level_charts, unlikely_rows, value_charts
from vae_cli.runs.directory import RunDirectory
from vae_cli.training.state import TrainingState

RECONSTRUCTIONS = 32  # in a picture
CHARTED = 2000  # examples that are no images
FEW, LEAST_DRAWN = 200, 1000  # test rows, beside which training rows are shown, and draws


def write_pictures(
    state: TrainingState, split: Split | None, output: RunDirectory, name: str | None, train: Split | None = None
) -> None:
    """Write samples and reconstructions: as `name` in their folders, or without one as the final ones.

    Args:
        state: of the training.
        split: whose examples are reconstructed, if any.
        output: the run directory.
        name: of the pictures.
        train: the training split, beside the final ones of examples that are no images.
    """
    seed, step = state.config["seed"], state.position.step
    if not state.facts.is_image:
        if split is not None and train is not None and name is None:
            write_value_charts(state, split, train, output)
        return
    suffix = "" if name is None else f"/{name}"
    with state.averaged_weights() as model:
        model.eval()
        output.picture(f"samples{suffix}", lambda: sample_grid(model, seed, state.facts.class_names), step)
        if split is not None:
            index = slice(0, RECONSTRUCTIONS)
            x, y = pixels(split, index, state.device), labels(split, index, state.device)
            output.picture(f"reconstructions{suffix}", lambda: reconstruction_grid(model, x, y), step)
        model.train()


@torch.no_grad()
def write_value_charts(state: TrainingState, test: Split, train: Split, output: RunDirectory) -> None:
    """Write the final charts of examples that are no images: draws beside data, what reconstructions leave, and the
    rows that are least likely."""
    model, seed, step, facts = state.model.eval(), state.config["seed"], state.position.step, state.facts
    some = test.spread(CHARTED)
    pairs = [(x.cpu(), model.likelihood.image(p).cpu()) for x, p in reconstructions(model, some, seed)]
    x, shown = (torch.cat(part).numpy() for part in zip(*pairs))
    # A histogram of few test rows would be of noise
    beside, kind = (some, "test data") if len(some) >= FEW else (train.spread(CHARTED), "training data")
    y = labels(beside, slice(None), torch.device("cpu")) if model.classes else None
    count = len(beside) if y is not None else max(len(beside), LEAST_DRAWN)
    drawn = torch.cat(list(generate_images(Sampler(model, seed), count, True, y))).numpy()
    if len(facts.shape) == 2:
        for name, other in (("samples", drawn), ("reconstructions", shown)):
            chart = value_charts.sequences(x, other, ("test data", name.removesuffix("s")))
            output.picture(name, partial(charts.to_png, chart), step)
        return
    data = pixels(beside, slice(None), torch.device("cpu")).numpy()
    x, shown, drawn, data = (values.reshape(len(values), -1) for values in (x, shown, drawn, data))
    columns = facts.columns or [_unnamed(number, facts.support) for number in range(x.shape[1])]
    marginals, names = partial(value_charts.marginals, data, drawn, columns, kind), names_of(columns)
    output.picture("samples", lambda: charts.to_png(marginals()), step)
    output.picture("correlations", lambda: charts.to_png(value_charts.correlations(data, drawn, names, kind)), step)
    shares = value_charts.unexplained_shares(x, shown, columns)
    output.picture("reconstructions", lambda: charts.to_png(value_charts.unexplained(shares, columns)), step)
    elbo = score(model, some, (1,), seed).elbo.numpy()
    text = unlikely_rows.table(x, shown, elbo, some.in_file.numpy(), columns)
    output.attempt(lambda: output.write(unlikely_rows.FILE, text), unlikely_rows.FILE)


def _unnamed(number: int, support: str) -> Column:
    is_binary = support == "binary"
    return Column(str(number), "binary" if is_binary else "real", ("0", "1") if is_binary else ())


@torch.no_grad()
def write_latent_pictures(
    state: TrainingState,
    codes: Codes,
    relative: Float[Tensor, "n d"],
    kl_per_dim: Float[Tensor, "d"] | None,
    numbers: Mapping[str, float],
    output: RunDirectory,
) -> None:
    """Write the final pictures of the latent space, of a conditional model for the label 0.

    They show where the test images lie, of a hierarchy in its top level, and what each dimension or level tells and
    does.

    Args:
        codes: of test images.
        relative: their means as `relative_means` gives them.
        kl_per_dim: of them, where it is known.
        numbers: the test split's, the KL of each level among them.
    """
    model, step, means = state.model, state.position.step, codes.means
    y, names, level = None if codes.labels is None else codes.labels.numpy(), state.facts.class_names, None
    if state.facts.is_image:
        output.picture("traversals", lambda: traversal_picture(model, relative), step)
    _, prior = model.example_distributions()
    shown = means
    if isinstance(model, Hierarchy) and isinstance(prior, HierarchicalPrior):
        prior, shown, level = prior.top, model.split(means)[-1], [*model.level_sizes][-1]
    border = None
    if prior.is_factorized and prior.provides("moments") and not prior.batch_shape:
        mean, std = prior.moments()
        border = mean.cpu().numpy(), std.cpu().numpy()
    plane = (shown.numpy(), y, border, names, level, state.facts.noun)
    output.picture("latents", lambda: charts.to_png(charts.latent_codes(*plane)), step)
    if isinstance(model, Hierarchy):
        if state.facts.is_image:
            output.picture("levels", lambda: levels_picture(model, state.config["seed"]), step)
        if kl := kl_by_level(model, numbers):
            output.picture("kl_per_level", lambda: charts.to_png(level_charts.kl_per_level(kl)), step)
    elif kl_per_dim is not None:
        output.picture("kl_per_dim", lambda: charts.to_png(charts.kl_per_dim(kl_per_dim.tolist())), step)
