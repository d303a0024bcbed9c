"""Directions to move along: the telling ones first, as far as codes lie."""

import pytest
import torch

from vae_cli.exploring.axes import dimensions, principal


def test_principal_directions_are_those_of_the_largest_variance_and_the_same_each_time():
    generator = torch.Generator().manual_seed(0)
    basis, _ = torch.linalg.qr(torch.randn(5, 5, generator=generator))
    means = torch.randn(500, 5, generator=generator) * torch.tensor([5.0, 3.0, 1.0, 0.1, 0.1]) @ basis.T + 2
    axes = principal(means, torch.zeros(5))
    assert [axis.name for axis in axes] == ["p1", "p2", "p3", "p4", "p5"]
    assert abs(axes[0].direction @ basis[:, 0]) > 0.99 and abs(axes[1].direction @ basis[:, 1]) > 0.99
    for axis in axes:
        u = axis.places(means)
        assert axis.low - 1e-4 <= u.min() and u.max() <= axis.high + 1e-4 and abs(u.mean()) < 1e-4
        assert axis.low <= axis.start <= axis.high
        assert axis.start == pytest.approx(float(axis.places(torch.zeros(1, 5))), abs=1e-4)
        assert axis.direction.norm() == pytest.approx(1, abs=1e-5)
        assert axis.direction[axis.direction.abs().argmax()] > 0
    assert torch.equal(principal(means.clone(), torch.zeros(5))[1].direction, axes[1].direction)


def test_codes_that_are_all_the_same_have_a_plane_all_the_same():
    for axis in principal(torch.ones(10, 3), torch.zeros(3)):
        assert axis.low < axis.high and axis.direction.isfinite().all()


def test_dimensions_are_in_the_order_of_their_variance_and_reach_all_codes(plain):
    means = plain.test.means
    axes = dimensions(plain.model, means)
    order = means.double().var(0, correction=0).argsort(descending=True).tolist()
    assert [axis.name for axis in axes] == [f"z{d}" for d in order]
    for axis in axes:
        assert axis.low <= axis.places(means).min() and axis.places(means).max() <= axis.high
        assert axis.low <= -3 and axis.high >= 3


def test_without_codes_the_dimension_that_changes_the_image_most_comes_first(plain):
    axes = dimensions(plain.model, None)
    effects = {}
    for axis in axes:
        with torch.no_grad():
            below, above = plain.model.image(torch.stack([-axis.direction, axis.direction]))
        effects[axis.name] = float((above - below).square().mean())
    assert [axis.name for axis in axes] == sorted(effects, key=effects.get, reverse=True)
