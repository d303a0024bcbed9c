"""The parts of hierarchies: what they are at the start, and what they keep."""

import pytest
import torch
from torch import nn

from vae_cli.distributions.levels import normal
from vae_cli.networks.top_down import (
    START_LOG_SCALE,
    Enlarge,
    FromVector,
    LadderEncoder,
    MapEncoder,
    MapOutput,
    Residual,
    TopDownBlock,
    VectorOutput,
    changed_width,
    conv3,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("size", [(6, 4), (5, 4), (5, 3)])
def test_enlarged_maps_start_as_four_equal_pixels_of_the_same_norm(size):
    h = torch.randn(3, 6, 3, 2)
    out = Enlarge(6, 6, size)(h)
    repeated = out[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2)[..., : size[0], : size[1]]
    torch.testing.assert_close(out, repeated)
    torch.testing.assert_close(out[..., ::2, ::2].norm(dim=1), h.norm(dim=1))


def test_maps_made_of_a_vector_start_with_values_of_its_size():
    layer = FromVector(64, 5, (3, 2))
    out = layer(3 * torch.randn(400, 64)).detach()
    assert out.shape == (400, 5, 3, 2) and 2.7 < float(out.std()) < 3.3
    assert torch.equal(layer(torch.zeros(1, 64)), torch.zeros(1, 5, 3, 2))


def test_another_width_starts_as_an_orthogonal_map():
    layer, h = changed_width(4, 6), torch.randn(5, 4)
    torch.testing.assert_close(layer(h).norm(dim=1), h.norm(dim=1))
    assert changed_width(4, 4) is None


@pytest.mark.parametrize(("layer", "shape"), [(nn.Linear, (6,)), (conv3, (6, 3, 2))])
def test_a_residual_block_adds_its_layers_times_its_scale(layer, shape):
    h = torch.randn(4, *shape)
    assert torch.equal(Residual(6, layer, "silu")(h), h)
    added = []
    for scale in (1.0, 0.25):
        torch.manual_seed(1)
        added.append(Residual(6, layer, "silu", depth=3, scale=scale)(h) - h)
    torch.testing.assert_close(added[1], 0.25 * added[0])
    assert added[0].abs().mean() > 0.01


@pytest.mark.parametrize(("latent", "size"), [((2,), ()), ((2, 3, 2), (3, 2))])
def test_a_level_starts_with_a_standard_prior_and_a_narrower_posterior(latent, size):
    block, h = TopDownBlock(6, latent, "silu", 2, 0.5), torch.randn(50, 6, *size)
    p, q = normal(block.prior(h), (50,)), normal(block.posterior(h, torch.randn_like(h)), (50,))
    assert torch.equal(p.loc, torch.zeros(50, block.latent_dim)) and torch.equal(p.scale, torch.ones_like(p.loc))
    assert abs(float(q.log_scale.detach().mean()) - START_LOG_SCALE) < 0.3 and float(q.loc.detach().std()) > 0.1


def test_a_state_keeps_its_size_over_many_levels():
    levels, h = 36, torch.randn(64, 32)
    for _ in range(levels):
        h = TopDownBlock(32, (32,), "silu", 2, levels**-0.5)(h, torch.randn(64, 32))
    assert 0.8 < float(h.detach().std()) < 1.6


ENCODERS = {
    "ladder": lambda: (LadderEncoder((2, 5), [6, 4, 3], "silu", 2), (2, 5), [(6,), (4,), (3,)]),
    "maps": lambda: (
        MapEncoder((2, 9, 7), [4, 5, 6], [(5, 4), (3, 2), (1, 1)], [0, 2, 1], 2, "silu", 2),
        (2, 9, 7),
        [(5, 3, 2), (5, 3, 2), (6,)],
    ),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_an_encoder_gives_the_features_of_each_level_of_one_example_alone(name):
    encoder, shape, features = ENCODERS[name]()
    x = torch.randn(3, *shape)
    together, alone = encoder(x), encoder(x[:1])
    assert [tuple(each.shape) for each in together] == [(3, *each) for each in features]
    for one, other in zip(together, alone):
        torch.testing.assert_close(one[:1], other, rtol=1e-4, atol=1e-5)
    sum(each.square().sum() for each in together).backward()
    assert all(parameter.grad is not None for parameter in encoder.parameters())


@pytest.mark.parametrize(
    ("make", "state"),
    [
        (lambda: VectorOutput(4, (2, 9, 7), "silu"), (4,)),
        (lambda: MapOutput(4, (2, 9, 7), 2, "silu", 0.5), (4, 5, 4)),
        (lambda: MapOutput(4, (2, 9, 7), 1, "silu", 0.5, [Enlarge(6, 4, (9, 7))]), (6, 5, 4)),
    ],
)
def test_an_output_starts_where_it_is_set_to(make, state):
    network, output = make(), torch.randn(2, 9, 7)
    last = network.linear if isinstance(network, VectorOutput) else network.output.conv
    assert network(torch.randn(3, *state)).shape == (3, 2, 9, 7)
    nn.init.zeros_(last.weight)
    network.start_at(output)
    torch.testing.assert_close(network(torch.randn(3, *state)), output.expand(3, -1, -1, -1))
