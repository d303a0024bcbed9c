"""Networks of sequences fit any length and treat every example alone."""

import pytest
import torch

from vae_cli.errors import ConfigError
from vae_cli.networks import Conv1dDecoder, Conv1dEncoder

SHAPES = [(1, 1), (2, 7), (3, 64), (1, 101)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("width", [1, 3, 5])
def test_sequences_of_any_length_go_in_and_come_out(shape, width):
    x = torch.randn(4, *shape)
    features = Conv1dEncoder(shape, 6, width=width)(x)
    decoder = Conv1dDecoder(6, shape, width=width)
    assert features.shape == (4, 6) and decoder(features).shape == (4, *shape)
    torch.testing.assert_close(decoder(features[:1]), decoder(features)[:1], rtol=1e-4, atol=1e-5)
    decoder(features).square().sum().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in decoder.parameters())


def test_a_decoder_starts_at_the_output_that_it_is_given():
    decoder, output = Conv1dDecoder(3, (2, 9)), torch.randn(2, 9)
    torch.nn.init.zeros_(decoder.output.weight)
    decoder.start_at(output)
    torch.testing.assert_close(decoder(torch.randn(5, 3)), output.expand(5, 2, 9))


@pytest.mark.parametrize("shape", [(5,), (1, 8, 8)])
def test_other_examples_are_refused_in_a_line_with_the_fix(shape):
    for build in (lambda: Conv1dEncoder(shape, 6), lambda: Conv1dDecoder(6, shape)):
        with pytest.raises(ConfigError, match=r"need sequences \(C, L\), and these examples .*; choose mlp"):
            build()
    with pytest.raises(ConfigError, match="width=4: .* choose 5"):
        Conv1dEncoder((1, 8), 6, width=4)
