"""Networks build themselves for any image and treat every example alone."""

from typing import get_args

import numpy as np
import pytest
import torch

from tests.support.annotations import takes
from vae_cli.errors import ConfigError
from vae_cli.networks import (
    ConvDecoder,
    ConvEncoder,
    GatedMLPDecoder,
    GatedMLPEncoder,
    LabeledEncoder,
    MLPDecoder,
    MLPEncoder,
    ResNetDecoder,
    ResNetEncoder,
)
from vae_cli.networks.layers import ACTIVATIONS, Activation, group_norm

SHAPES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (1, 40, 25), (3, 1, 5)]
ENCODERS = [MLPEncoder, GatedMLPEncoder, ConvEncoder, ResNetEncoder]
DECODERS = [MLPDecoder, GatedMLPDecoder, ConvDecoder, ResNetDecoder]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("encoder", ENCODERS)
def test_encoders_take_any_shape(encoder, shape):
    assert encoder(shape, 7)(torch.randn(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_give_any_shape(decoder, shape):
    assert decoder(5, shape)(torch.randn(2, 5)).shape == (2, *shape)


@pytest.mark.parametrize("network", [*ENCODERS, *DECODERS])
def test_an_example_does_not_see_its_neighbours_and_every_weight_gets_a_gradient(network):
    torch.manual_seed(0)
    shape = (3, 9, 6)
    encodes = network in ENCODERS
    built = network(shape, 4) if encodes else network(4, shape)
    x = torch.randn(3, *(shape if encodes else (4,)))
    together, alone = built(x), built(x[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-4, atol=1e-5)
    together.square().sum().backward()
    for name, p in built.named_parameters():
        # What stands before a block's last, zeroed convolution has no gradient in the very first step.
        if ".residual." not in name or name.endswith(("residual.5.weight", "residual.5.bias")):
            assert p.grad is not None and p.grad.abs().sum() > 0, name


@pytest.mark.parametrize("decoder", DECODERS)
def test_decoders_start_at_the_output_they_are_told(decoder):
    output = torch.rand(2, 6, 5)
    built = decoder(4, (2, 6, 5))
    torch.nn.init.zeros_(getattr(built.output, "conv", built.output).weight)
    built.start_at(output)
    torch.testing.assert_close(built(torch.randn(3, 4)), output.expand(3, 2, 6, 5))


@pytest.mark.parametrize("channels", [1, 2, 3, 8, 12, 20, 32, 64, 100])
def test_group_norm_has_groups_for_any_number_of_channels(channels):
    assert group_norm(channels)(torch.randn(2, channels, 3, 3)).shape == (2, channels, 3, 3)


def test_no_hidden_layers_make_a_linear_map():
    encoder = MLPEncoder((1, 4, 4), 3, hidden=[])
    a, b = torch.randn(2, 1, 4, 4), torch.randn(2, 1, 4, 4)
    torch.testing.assert_close(encoder(a + b), encoder(a) + encoder(b) - encoder.output.bias)


def test_a_gated_layer_is_a_linear_one_times_the_sigmoid_of_another():
    encoder, x = GatedMLPEncoder((1, 2, 3), 4, hidden=[5]).double(), torch.randn(7, 1, 2, 3, dtype=torch.float64)
    weight, bias = (p.detach().numpy() for p in encoder.layers[0].parameters())
    both = x.flatten(1).numpy() @ weight.T + bias
    gated = torch.tensor(both[:, :5] / (1 + np.exp(-both[:, 5:])))
    expected = gated @ encoder.output.weight.T + encoder.output.bias
    torch.testing.assert_close(encoder(x), expected)


@pytest.mark.parametrize("network", [*ENCODERS, *DECODERS])
def test_annotations_refuse_an_unknown_activation_and_widths_that_are_none(network):
    width = "channels" if network in (ConvEncoder, ConvDecoder, ResNetEncoder, ResNetDecoder) else "hidden"
    assert takes(network, width, [3]) and takes(network, width, []) == (width == "hidden")
    assert not any(takes(network, width, value) for value in ([0], [1.5], 400, None))
    if network not in (GatedMLPEncoder, GatedMLPDecoder):
        assert takes(network, "activation", "gelu") and not takes(network, "activation", "relo")


def test_every_activation_is_a_layer():
    assert get_args(Activation) == tuple(ACTIVATIONS)


@pytest.mark.parametrize("shape", [(7,), (2, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("network", [*ENCODERS, *DECODERS])
def test_fully_connected_networks_take_any_shape_and_convolutions_say_that_they_need_images(network, shape):
    is_encoder = network in ENCODERS
    arguments = (shape, 6) if is_encoder else (6, shape)
    if network in (MLPEncoder, MLPDecoder, GatedMLPEncoder, GatedMLPDecoder):
        output = network(*arguments)(torch.randn(3, *(shape if is_encoder else (6,))))
        assert output.shape == (3, *((6,) if is_encoder else shape))
    else:
        with pytest.raises(ConfigError, match=r"need images \(C, H, W\)"):
            network(*arguments)


@pytest.mark.parametrize("shape", [(7,), (2, 5), (1, 4, 4)])
def test_labels_are_one_channel_more_of_any_shape(shape):
    encoder = LabeledEncoder(MLPEncoder((shape[0] + 1, *shape[1:]), 3), shape, 4)
    x, y = torch.randn(5, *shape), torch.tensor([0, 1, 2, 3, 3])
    assert encoder(x, y).shape == (5, 3)
    assert not torch.allclose(encoder(x, y), encoder(x, 0 * y))
